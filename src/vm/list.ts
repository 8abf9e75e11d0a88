import { basename, join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { toJson } from "../lib/json.ts";
import { EXIT, StatusError, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { shellQuote } from "../lib/shell.ts";
import { matchesPattern, plain } from "../lib/text.ts";
import { lstatOf } from "../lib/read-file.ts";
import { HOST, READY } from "../store/layout.ts";
import { findVms, shortenDirectories } from "./all.ts";
import type { Context } from "./context.ts";
import { findHostdir, openUser } from "./find.ts";
import { noVmIn } from "../store/no-vm.ts";
import { formatList, formatStatus, stateWord } from "./status-text.ts";
import { STATES, type AutostartStatus, type Status } from "./status-types.ts";
import { examineVm, readVmStatus } from "./status.ts";

/** Shows one VM. @throws the exit status of an error, which is shown */
export async function showStatus(context: Context, json: boolean): Promise<void> {
  const hostdir = findHostdir(context);
  const { status, exitCode } = await examineVm(context, hostdir);
  const nothing = status.workingFiles === null && status.snapshots?.count === 0;
  if (nothing && !lstatOf(join(hostdir, HOST.guestEnv)))
    throw lstatOf(join(hostdir, READY)) ? unfinished(hostdir) : noVmIn(hostdir);
  if (status.autostart?.unit) await addUnitState(status, status.autostart);
  context.print(json ? toJson(status) : formatStatus(status));
  if (status.labels?.some(context.isCommand)) await warnOfLabels(context, [status]);
  if (exitCode !== EXIT.ok) throw new StatusError(status.error!, exitCode);
}

/** What systemd says of its unit. */
async function addUnitState(status: Status, autostart: AutostartStatus): Promise<void> {
  const { readUnitStates } = await import("./autostart-state.ts");
  const { manager, unit } = autostart;
  const state = (await readUnitStates(manager === "system", [unit!])).get(unit!);
  autostart.state = state ?? null;
  if (state && typeof status.pid === "number") autostart.watched = state.mainPid === status.pid;
}

/** After a `create --inplace` that was killed before moving the complete working files. */
const unfinished = (hostdir: string): VmError =>
  new VmError(
    "io",
    `cannot show the VM in ${hostdir}: a command was interrupted before it moved the working files`,
    {
      hint: `run a command that changes the VM, to finish it: ${commandLine("backup")}`,
    },
  );

/** What `list` shows: all VMs, or those that fit. */
export interface Selection {
  /** States, as shown by `list`. One of them is enough. */
  states: readonly string[];
  /** With `*` and `?`: of a VM's name or directory. One of them is enough. */
  patterns: readonly string[];
  labels: readonly string[];
}

const isStateWord = (word: string): boolean => (STATES as readonly string[]).includes(word);

/** Words of `list`: a state, else a name or a pattern. @throws 64 */
export function parseSelection(words: readonly string[], labels: readonly string[] = []): Selection {
  return {
    states: words.filter(isStateWord),
    patterns: words.filter((word) => !isStateWord(word)),
    labels,
  };
}

/** Are its labels not known? It is named, rather than missed. */
const areUnknown = ({ labels, gone }: Status): boolean =>
  labels === undefined || (gone !== undefined && labels.length === 0);

/** Pure: is a VM among these? */
export function isSelected(status: Status, { states, patterns, labels }: Selection): boolean {
  const names = [status.name, basename(status.directory), status.directory];
  return (
    (states.length === 0 || states.includes(status.state) || states.includes(stateWord(status))) &&
    (patterns.length === 0 ||
      patterns.some((pattern) => names.some((name) => matchesPattern(name, pattern)))) &&
    (labels.length === 0 || labels.some((label) => status.labels?.includes(label)))
  );
}

/** As it was typed. */
export const describeSelection = ({ states, patterns, labels }: Selection): string =>
  plain([...states, ...patterns, ...labels.map((label) => `@${label}`)].join(" "));

/** Lists the VMs below PROFILES, and others that this user has created or changed, or that run. */
export async function listVms(
  context: Context,
  how: { json: boolean; names: boolean; selection: Selection },
): Promise<void> {
  const { PROFILES } = (await openUser(context)).settings;
  const directories = findVms(context, PROFILES);
  if (directories.length === 0) {
    const place = shellQuote(join(PROFILES, "NAME"));
    log.info(`no VMs yet; create one: mkdir -p ${place} && cd ${place} && ${commandLine("create", "NAME")}`);
  }
  const nameOf = shortenDirectories(PROFILES);
  const { selection, json, names } = how;
  const isWhole = Object.values(selection).every((words) => words.length === 0);
  if (names && isWhole) return context.print(directories.map((path) => `${plain(nameOf(path))}\n`).join(""));
  const all = await Promise.all(directories.map((directory) => readVmStatus(context, directory)));
  const shown = all.filter((status) => isSelected(status, selection));
  if (selection.labels.length > 0)
    warnOfUnknown(
      all.filter((status) => areUnknown(status) && isSelected(status, { ...selection, labels: [] })),
    );
  if (shown.length === 0 && directories.length > 0) log.info(`no VM matches ${describeSelection(selection)}`);
  if (names) return context.print(shown.map(({ directory }) => `${plain(nameOf(directory))}\n`).join(""));
  context.print(json ? toJson(shown) : formatList(shown, nameOf));
  if (all.some((status) => status.labels?.some(context.isCommand))) await warnOfLabels(context, all);
}

function warnOfUnknown(vms: readonly Status[]): void {
  for (const { name, directory } of vms)
    log.warn(`${plain(name)} (${plain(directory)}) is left out, as its labels cannot be read`);
}

const warnOfLabels = async (context: Context, vms: readonly Status[]): Promise<void> =>
  (await import("./command-labels.ts")).warnOfCommandLabels(context, vms);
