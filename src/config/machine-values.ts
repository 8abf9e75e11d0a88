/** What some settings of a VM may be: those of its machine, its labels, and limits of its qemu. */
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
  allowed: LABEL_SYNTAX,
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
  "a name that ends in .slice, or empty",
  /^$|^[A-Za-z0-9:_][A-Za-z0-9:_.\\-]{0,200}\.slice$/,
);

/** Is a limit of qemu set? */
export const hasLimits = (settings: {
  CPU_QUOTA: number | undefined;
  MEMORY_MAX: number | undefined;
  IO_WEIGHT: number | undefined;
  SLICE: string;
}): boolean =>
  [settings.CPU_QUOTA, settings.MEMORY_MAX, settings.IO_WEIGHT].some((limit) => limit !== undefined) ||
  settings.SLICE !== "";
