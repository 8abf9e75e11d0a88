/** Parses a mark (`.vm.json`) field by field: it may come from another version, a bad disk or an attacker. */
import { isAbsolute, resolve } from "node:path";
import {
  ADDED_LISTS,
  isSettingName,
  machineSettings,
  parseSetting,
  type RawSettings,
} from "../config/schema.ts";
import { VmError } from "../lib/errors.ts";
import { isPlainName, plain } from "../lib/text.ts";
import { parseForwards, parseHostForward } from "../machine/parse.ts";
import { AIOS, IMAGE_FORMATS, type Aio, type DisplayAddress } from "../machine/types.ts";
import {
  parseConsistency,
  RUN_ENDS,
  type BaseRecord,
  type CloneRecord,
  type JailRecord,
  type Mark,
  type RunRecord,
} from "./mark-types.ts";
import { isUuid } from "../lib/uuid.ts";
import { sha256 } from "../lib/crypto.ts";

/** The format that this version writes. */
const FORMAT = 1;

type Fields = Record<string, unknown>;

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The text of a mark, with the checksum of its other fields as the last one. */
export function formatMark({ damaged: _damaged, ...fields }: Mark): string {
  // As JSON has it: without undefined fields.
  const plainFields = JSON.parse(JSON.stringify(fields)) as Fields;
  return `${JSON.stringify({ ...plainFields, sum: sumFields(plainFields) }, null, 2)}\n`;
}

/** SHA-256 of the fields as compact JSON, in their order. */
const sumFields = (fields: Fields): string => sha256(JSON.stringify(fields));

/**
 * Parses a mark. Malformed fields are left out. A damaged mark still is one, with the fields that can be read, and with
 * an unknown exit reason.
 * @throws 78 for the mark of a newer version
 */
export function parseMark(text: string, path: string): Mark {
  let fields: Fields = {};
  let whole = false;
  let sum: unknown;
  try {
    const parsed: unknown = JSON.parse(text);
    if (isFields(parsed)) {
      ({ sum, ...fields } = parsed);
      whole = sum === undefined || sum === sumFields(fields);
    }
  } catch {
    // Not JSON, or nested too deeply for the parser.
  }
  const { vm } = fields;
  if (whole && typeof vm === "number" && Number.isInteger(vm) && vm > FORMAT)
    throw new VmError("config", `${path} was written by a newer version of this program`, {
      hint: "use that version",
    });
  const dropped: string[] = [];
  const mark = readFields(fields, dropped);
  // Without a checksum (earlier versions), a malformed field is the only sign of damage.
  if (whole && vm === FORMAT && (sum !== undefined || dropped.length === 0)) return mark;
  // This list decides what `destroy` removes: a damaged one is not used.
  const { owns: _owns, files: _files, ...rest } = mark;
  return { ...rest, lastRun: "unknown", damaged: true };
}

function readFields(fields: Fields, dropped: string[]): Mark {
  const take = <T>(name: string, parse: (value: unknown) => T | undefined): T | undefined => {
    const value = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (value === undefined) return undefined;
    const parsed = parse(value);
    if (parsed === undefined) dropped.push(name);
    return parsed;
  };
  const mark: Mark = {
    vm: FORMAT,
    created: take("created", date) ?? "",
    // An unknown word is an unknown exit reason.
    lastRun: take("lastRun", (value) => RUN_ENDS.find((end) => end === value)),
    run: take("run", (value) => readRun(value, dropped)),
    job: take("job", (value) => count(value, 1)),
    restored: take("restored", parseConsistency),
    tpm: take("tpm", (value) => (value === true ? value : undefined)),
    interruptedJob: take("interruptedJob", (value) => (value === true ? value : undefined)),
    onlyJobs: take("onlyJobs", (value) => (value === true ? value : undefined)),
    unrecorded: take("unrecorded", (value) => (value === true ? value : undefined)),
    base: take("base", readBase),
    onSnapshot: take("onSnapshot", readOnSnapshot),
    arriving: take("arriving", readArriving),
    clone: take("clone", readClone),
    backupsApart: take("backupsApart", (value) => (typeof value === "boolean" ? value : undefined)),
    files: take("files", names),
    owns: take("owns", names),
    disks: take("disks", names),
    replaces: take("replaces", path),
    unlinked: take("unlinked", (value) => (value === true ? value : undefined)),
    movingTo: take("movingTo", path),
  };
  if (dropped.includes("lastRun")) mark.lastRun = "unknown";
  for (const name of Object.keys(mark) as (keyof Mark)[]) if (mark[name] === undefined) delete mark[name];
  return mark;
}

const MAX_TEXT = 4096;

const asText = (value: unknown): string | undefined =>
  typeof value === "string" && value.length <= MAX_TEXT ? value : undefined;

const count = (value: unknown, least = 0): number | undefined =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= least ? value : undefined;

const date = (value: unknown): string | undefined =>
  typeof value === "string" &&
  /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/.test(value) &&
  !Number.isNaN(Date.parse(value))
    ? value
    : undefined;

/** An absolute, normalised path. */
const path = (value: unknown): string | undefined =>
  typeof value === "string" && isAbsolute(value) && resolve(value) === value && !value.includes("\0")
    ? value
    : undefined;

const strings = (value: unknown): string[] | undefined =>
  Array.isArray(value) && value.every((item) => asText(item) !== undefined) ? (value as string[]) : undefined;

const names = (value: unknown): string[] | undefined =>
  Array.isArray(value) && value.every(isPlainName) ? value : undefined;

/** Rules as passed to qemu: `hostfwd=…` and other options of a user-mode network card. */
const asForwards = (value: unknown): string[] | undefined => {
  const list = strings(value);
  // One by one: a comma within one would split it.
  return list?.every((rule) => {
    const parsed = parseForwards(rule);
    const isOne = "options" in parsed && parsed.options.length === 1 && parsed.options[0] === rule;
    return isOne && plain(rule) === rule && !namesOption(rule);
  })
    ? list
    : undefined;
};

/** Programs such as ssh read a host that starts with a dash as an option. */
const namesOption = (rule: string): boolean =>
  parseHostForward(rule.replace(/^hostfwd=/, ""))?.hostAddress.startsWith("-") === true;

function readRun(value: unknown, dropped: string[]): RunRecord | undefined {
  if (!isFields(value)) return undefined;
  const started = date(value.started);
  const pid = value.pid === undefined ? undefined : count(value.pid, 1);
  const rules = asForwards(value.forwards);
  if (started === undefined || (value.pid !== undefined && pid === undefined)) return undefined;
  const display = value.display === undefined ? undefined : readDisplay(value.display);
  const diskAio = AIOS.find((word) => word === value.diskAio);
  const diskAios = value.diskAios === undefined ? undefined : readAios(value.diskAios);
  const limits = isFields(value.limits) ? readLimits(value.limits) : undefined;
  const ended = value.ended === undefined ? undefined : date(value.ended);
  const how = asText(value.how);
  if (rules === undefined) dropped.push("run.forwards");
  if (value.diskAio !== undefined && diskAio === undefined) dropped.push("run.diskAio");
  if (value.diskAios !== undefined && diskAios === undefined) dropped.push("run.diskAios");
  if (value.limits !== undefined && limits === undefined) dropped.push("run.limits");
  if (value.display !== undefined && display === undefined) dropped.push("run.display");
  if (value.ended !== undefined && ended === undefined) dropped.push("run.ended");
  if (value.how !== undefined && how === undefined) dropped.push("run.how");
  return {
    started,
    detached: value.detached === true,
    ...(pid !== undefined && { pid }),
    ...(value.settings !== undefined && { settings: readMachine(value.settings, dropped) }),
    ...(isFields(value.cd) && { cd: { first: value.cd.first === true } }),
    forwards: rules ?? [],
    ...(diskAio && { diskAio }),
    ...(diskAios && { diskAios }),
    ...(isFields(value.jail) && { jail: readJail(value.jail) }),
    ...(limits && { limits }),
    ...(display && { display }),
    typed: readTyped(value.typed, dropped),
    // It has ended; the time is unreadable.
    ...(value.ended !== undefined && { ended: ended ?? started }),
    ...(how !== undefined && { how }),
  };
}

function readJail(value: Fields): JailRecord {
  const reasons = Array.isArray(value.reasons) ? value.reasons.flatMap((one) => asText(one) ?? []) : [];
  return {
    namespaces: value.namespaces === true,
    network: value.network === true,
    noNewPrivileges: value.noNewPrivileges === true,
    landlock: value.landlock === true,
    uid: count(value.uid, 0) ?? null,
    reasons,
  };
}

function readLimits({ group, problem }: Fields): RunRecord["limits"] {
  const [place, reason] = [path(group), asText(problem)];
  if (place !== undefined) return { group: place };
  return reason === undefined ? undefined : { problem: reason };
}

/** By numbers of disks. */
function readAios(value: unknown): Record<number, Aio> | undefined {
  if (!isFields(value)) return undefined;
  const right = Object.entries(value).every(
    ([number, aio]) => /^\d{1,4}$/.test(number) && AIOS.some((word) => word === aio),
  );
  return right ? (value as Record<number, Aio>) : undefined;
}

function readDisplay(value: unknown): RunRecord["display"] {
  if (!isFields(value)) return undefined;
  const protocol = (["spice", "vnc"] as const).find((word) => word === value.protocol);
  const socket = path(value.socket) ?? (isPlainName(value.socket) ? value.socket : undefined);
  const port = count(value.port, 1);
  const host =
    typeof value.host === "string" && /^[A-Za-z0-9:._%][A-Za-z0-9:._%-]*$/.test(value.host)
      ? value.host
      : undefined;
  const at: DisplayAddress | undefined =
    socket !== undefined
      ? { socket }
      : host !== undefined && port !== undefined && port < 65536
        ? { host, port }
        : undefined;
  return protocol && at && { protocol, ...at };
}

/** Is this a known setting with a valid value? */
function isRight(name: string, raw: unknown): boolean {
  if (!isSettingName(name)) return false;
  const given = asText(raw) ?? strings(raw);
  return given !== undefined && "value" in parseSetting(name, given);
}

/** Settings of a machine: only these, with valid values. */
function readMachine(value: unknown, dropped: string[]): RawSettings {
  const settings: RawSettings = {};
  const fields = isFields(value) ? value : {};
  for (const name of machineSettings())
    if (!Object.hasOwn(fields, name)) continue;
    else if (isRight(name, fields[name])) Object.assign(settings, { [name]: fields[name] });
    else dropped.push(`run.settings.${name}`);
  return settings;
}

/** Options of a run: only known settings with valid values. */
function readTyped(value: unknown, dropped: string[]): RunRecord["typed"] {
  const typed: RunRecord["typed"] = { settings: {}, additions: {}, ssh: false };
  if (!isFields(value)) return typed;
  const settings: RawSettings = {};
  for (const [name, raw] of Object.entries(isFields(value.settings) ? value.settings : {}))
    // Earlier versions recorded `--image=` in this way, which left the VM without its own disks.
    if (name === "IMAGES") continue;
    else if (isRight(name, raw)) Object.assign(settings, { [name]: raw });
    else dropped.push(name);
  for (const name of ADDED_LISTS) {
    const given = isFields(value.additions) ? value.additions[name] : undefined;
    if (given === undefined) continue;
    if (Array.isArray(given) && isRight(name, given)) typed.additions[name] = given as string[];
    else dropped.push(name);
  }
  return { ...typed, settings, ssh: value.ssh === true };
}

function readBase(value: unknown): BaseRecord | undefined {
  if (!isFields(value)) return undefined;
  const place = path(value.path);
  const format = IMAGE_FORMATS.find((one) => one === value.format);
  if (place === undefined || format === undefined) return undefined;
  const bytes = count(value.bytes);
  const modified = date(value.modified);
  const device = count(value.device);
  return {
    path: place,
    format,
    ...(bytes !== undefined && { bytes }),
    ...(modified !== undefined && { modified }),
    ...(device !== undefined && { device }),
  };
}

function readClone(value: unknown): CloneRecord | undefined {
  if (!isFields(value)) return undefined;
  const directory = path(value.directory);
  const base = value.base === undefined ? undefined : readOnSnapshot(value.base);
  if (directory === undefined || (value.base !== undefined && base === undefined)) return undefined;
  return {
    directory,
    ...(isUuid(value.uuid) && { uuid: value.uuid }),
    ...(isPlainName(value.snapshot) && { snapshot: value.snapshot }),
    ...(base && { base }),
  };
}

function readArriving(value: unknown): Mark["arriving"] {
  if (!isFields(value) || !isPlainName(value.name)) return undefined;
  const { name, id } = value;
  if (typeof id !== "string" || !/^[0-9a-f]{64}$/.test(id)) return undefined;
  return { name, id, snapshotId: asText(value.snapshotId) };
}

function readOnSnapshot(value: unknown): Mark["onSnapshot"] {
  if (!isFields(value) || !isPlainName(value.name)) return undefined;
  const id = asText(value.id);
  const sum = asText(value.sum);
  return id === undefined || sum === undefined ? undefined : { name: value.name, id, sum };
}
