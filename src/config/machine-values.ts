/** What some settings of a VM may be: those of its machine, its labels, and limits of its qemu. */
import { parseSize } from "../lib/size.ts";
import { isLabel } from "../lib/text.ts";
import { parseMac } from "../machine/mac.ts";
import { LAYOUTS, type Layout } from "../machine/types.ts";
import { listOfForm, parser, pattern, scalarOf, textOfForm, type Parser } from "./values.ts";

const LAYOUT_SYNTAX = `one of ${LAYOUTS.join(" ")}, or a newer version of this program`;
export const layout: Parser<Layout> = parser(
  { allowed: LAYOUT_SYNTAX, choices: LAYOUTS.map(String) },
  (raw) => {
    const value = LAYOUTS.find((number) => String(number) === scalarOf(raw));
    return value === undefined ? { allowed: LAYOUT_SYNTAX } : { value };
  },
);
const MAC_SYNTAX = "auto, empty, or a MAC address such as 02:1a:2b:3c:4d:5e";
export const mac: Parser<string> = parser({ allowed: MAC_SYNTAX }, (raw) => {
  const given = scalarOf(raw);
  const value = given === "" || given === "auto" ? given : parseMac(given);
  return value === undefined ? { allowed: MAC_SYNTAX } : { value };
});
/** The field of a DHCP reply has 128 bytes (RFC 2131). */
const MAX_BOOT_FILE_BYTES = 127;
export const bootFile = textOfForm(
  `at most ${MAX_BOOT_FILE_BYTES} bytes of printable text`,
  (value) => !/\p{Cc}/u.test(value) && Buffer.byteLength(value) <= MAX_BOOT_FILE_BYTES,
);

const TPM_SYNTAX = "2.0, or empty";
export const tpm: Parser<"" | "2.0"> = parser({ allowed: TPM_SYNTAX, choices: ["2.0"] }, (raw) => {
  const value = (["", "2.0"] as const).find((one) => one === scalarOf(raw));
  return value === undefined ? { allowed: TPM_SYNTAX } : { value };
});
export const LABEL_SYNTAX = "small letters, digits and . _ -, from a letter on, at most 63";
export const labels = listOfForm({
  allowed: `${LABEL_SYNTAX}; several: separated by blanks or commas`,
  parse: (item: string) => (isLabel(item) ? item : undefined),
  separator: /[\s,]+/,
});
const QUOTA_SYNTAX = "a percentage such as 50% or 150%, or empty";
/** In percent of one processor. */
export const cpuQuota: Parser<number | undefined> = parser<number | undefined>(
  { allowed: QUOTA_SYNTAX },
  (raw) => {
    const given = scalarOf(raw);
    if (given === "") return { value: undefined };
    const percent = /^([1-9][0-9]{0,5})%?$/.exec(given)?.[1];
    return percent === undefined ? { allowed: QUOTA_SYNTAX } : { value: Number(percent) };
  },
);

export const slice = pattern(
  "a name that ends in .slice, without -- and no - before .slice, or empty",
  /^$|^(?=[^.].{0,206}$)[A-Za-z0-9:_.\\]+(-[A-Za-z0-9:_.\\]+)*\.slice$/,
);

/** The limit of a disk, by its number. */
export interface DiskLimit {
  number: number;
  /** Requests per second. */
  iops?: number;
  bytesPerSecond?: number;
}

export const DISK_LIMIT_SYNTAX = "NUMBER:iops=N, NUMBER:bps=SIZE, or both with a comma: 0:iops=500,bps=20M";
/** qemu takes more, with which a limit has no meaning (THROTTLE_VALUE_MAX). */
const MAX_LIMIT = 1e15;

/** A whole number, or a size; undefined: not allowed. */
export const parseRate = (name: "iops" | "bps", text: string): number | undefined => {
  const value = name === "bps" ? parseSize(text) : /^[1-9]\d{0,14}$/.test(text) ? Number(text) : undefined;
  return value !== undefined && value <= MAX_LIMIT ? value : undefined;
};

function parseDiskLimit(item: string): DiskLimit | undefined {
  const [, number, words = ""] = /^(\d{1,4}):(.+)$/.exec(item) ?? [];
  if (number === undefined) return undefined;
  const limit: DiskLimit = { number: Number(number) };
  for (const word of words.split(",")) {
    const [, name, text = ""] = /^(iops|bps)=(.+)$/.exec(word) ?? [];
    const key = name === "iops" ? "iops" : "bytesPerSecond";
    const value = name === undefined ? undefined : parseRate(name as "iops" | "bps", text);
    if (value === undefined || limit[key] !== undefined) return undefined;
    limit[key] = value;
  }
  return limit;
}

const eachDiskLimit = listOfForm({ allowed: DISK_LIMIT_SYNTAX, parse: parseDiskLimit });
export const diskLimits: Parser<DiskLimit[]> = parser({ allowed: DISK_LIMIT_SYNTAX }, (raw) => {
  const parsed = eachDiskLimit(raw);
  if (!("value" in parsed)) return parsed;
  const numbers = parsed.value.map(({ number }) => number);
  const twice = parsed.value.find(({ number }, index) => numbers.indexOf(number) < index);
  return twice ? { allowed: "one element for each disk", given: formatDiskLimit(twice) } : parsed;
});

export const formatDiskLimit = ({ number, iops, bytesPerSecond }: DiskLimit): string =>
  `${number}:${[iops !== undefined && `iops=${iops}`, bytesPerSecond !== undefined && `bps=${bytesPerSecond}`].filter(Boolean).join(",")}`;

/** Is a limit of qemu set? */
export const hasLimits = (settings: {
  CPU_QUOTA: number | undefined;
  MEMORY_MAX: number | undefined;
  IO_WEIGHT: number | undefined;
  SLICE: string;
}): boolean =>
  [settings.CPU_QUOTA, settings.MEMORY_MAX, settings.IO_WEIGHT].some((limit) => limit !== undefined) ||
  settings.SLICE !== "";
