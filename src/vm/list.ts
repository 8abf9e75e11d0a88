import { basename, dirname, isAbsolute, join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { toJson } from "../lib/json.ts";
import { EXIT, StatusError, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { shellQuote } from "../lib/shell.ts";
import { plain } from "../lib/text.ts";
import { listDirectory } from "../store/files.ts";
import { lstatOf, readSmall, realPath } from "../lib/read-file.ts";
import { HOST, LOST_FOUND, READY } from "../store/layout.ts";
import { listPlaces } from "../store/places.ts";
import { listNoted } from "../store/running.ts";
import type { Context } from "./context.ts";
import { findHostdir, openUser } from "./find.ts";
import { noVmIn } from "../store/no-vm.ts";
import { formatList, formatStatus } from "./status-text.ts";
import { examineVm, readVmStatus } from "./status.ts";
import type { AutostartStatus, Status } from "./status-types.ts";

/** Shows one VM. @throws the exit status of an error, which is shown */
export async function showStatus(context: Context, json: boolean): Promise<void> {
  const hostdir = findHostdir(context);
  const { status, exitCode } = await examineVm(context, hostdir);
  const nothing = status.workingFiles === null && status.snapshots?.count === 0;
  if (nothing && !lstatOf(join(hostdir, HOST.guestEnv)))
    throw lstatOf(join(hostdir, READY)) ? unfinished(hostdir) : noVmIn(hostdir);
  if (status.autostart?.unit) await addUnitState(status, status.autostart);
  context.print(json ? toJson(status) : formatStatus(status));
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

/** Lists all VMs below PROFILES, and others that this user has created or changed, or that run. */
export async function listVms(context: Context, how: { json: boolean; names: boolean }): Promise<void> {
  const { PROFILES } = (await openUser(context)).settings;
  const directories = findVms(context, PROFILES);
  if (directories.length === 0) {
    const place = shellQuote(join(PROFILES, "NAME"));
    log.info(`no VMs yet; create one: mkdir -p ${place} && cd ${place} && ${commandLine("create", "NAME")}`);
  }
  const nameOf = (directory: string): string =>
    dirname(directory) === realPath(PROFILES) ? basename(directory) : directory;
  if (how.names) return context.print(directories.map((path) => `${plain(nameOf(path))}\n`).join(""));
  const all = await Promise.all(directories.map((directory) => readVmStatus(context, directory)));
  context.print(how.json ? toJson(all) : formatList(all, nameOf));
}

/** Directories of VMs, sorted: with settings, working files or snapshots; no rescue profiles. */
function findVms(context: Context, profiles: string): string[] {
  const home = realPath(profiles);
  const below = home ? listDirectory(home).map((name) => join(home, name)) : [];
  const recorded = [...listNoted(context.cacheDirectory), ...listPlaces(context.cacheDirectory)];
  const elsewhere = recorded.filter((directory) => isAbsolute(directory) && dirname(directory) !== home);
  return [...new Set([...below, ...elsewhere])].filter(isVm).toSorted();
}

function isVm(directory: string): boolean {
  try {
    if (lstatOf(join(directory, HOST.workLink)) || lstatOf(join(directory, HOST.backups))) return true;
  } catch {
    // Listed as broken, with the reason.
    return basename(directory) !== LOST_FOUND;
  }
  // A rescue profile, written by `rescue build` or by hand.
  const text = readSettingsText(join(directory, HOST.guestEnv));
  return text !== undefined && !/^\s*RESCUE_(ISO|KERNEL)=/m.test(text);
}

function readSettingsText(path: string): string | undefined {
  try {
    return readSmall(path);
  } catch {
    // Unreadable: listed as broken.
    return "";
  }
}
