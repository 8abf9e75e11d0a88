import { basename, join } from "node:path";
import { commandLine, programName } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { shellQuote } from "../lib/shell.ts";
import { plain } from "../lib/text.ts";
import { lstatOf } from "../lib/read-file.ts";
import { listDirectory } from "./files.ts";
import { HOST, isDiskName, READY, REMOVING, SNAPSHOT } from "./layout.ts";

/** HOSTDIR has nothing of a VM. */
export class NoVm extends VmError {
  constructor(hostdir: string) {
    super("noInput", `there is no VM in ${hostdir}`, {
      hint: `make one here: ${createLine(hostdir)}\nall VMs: ${programName()} list`,
    });
  }
}

export const noVmIn = (hostdir: string): VmError => new NoVm(hostdir);

/** Has HOSTDIR settings, working files or snapshots, or what an interrupted command has left of them? */
export function hasVm(hostdir: string): boolean {
  const names = [HOST.workLink, HOST.guestEnv, HOST.backups, READY, REMOVING];
  try {
    return names.some((name) => lstatOf(join(hostdir, name))) || listDirectory(hostdir).some(isDiskName);
  } catch {
    // Whoever reads it says what is wrong.
    return true;
  }
}

/** @throws 66 where there is no VM */
export function requireVm(hostdir: string): void {
  if (!hasVm(hostdir)) throw noVmIn(hostdir);
}

/** `create`, with the directory's name for the VM. */
function createLine(hostdir: string): string {
  const name = basename(hostdir);
  return commandLine("create", /^[A-Za-z0-9]/.test(name) && plain(name) === name ? name : "NAME");
}

/** Has HOSTDIR a snapshot, by its form? */
export function hasSnapshots(hostdir: string): boolean {
  const backups = join(hostdir, HOST.backups);
  try {
    return listDirectory(backups).some((name) => lstatOf(join(backups, name, SNAPSHOT.timestamp)));
  } catch {
    return false;
  }
}

/** The hint for a VM without working files: how to have some again. */
export function hintForWork(hostdir: string): string {
  if (hasSnapshots(hostdir)) return `restore the last snapshot: ${commandLine("restore")}`;
  const again = createLine(hostdir);
  if (!lstatOf(join(hostdir, HOST.guestEnv))) return `make the VM anew: ${again}`;
  const path = join(hostdir, HOST.guestEnv);
  return `no snapshot is left; make the VM anew: mv ${shellQuote(path)} ${shellQuote(`${path}.old`)} && ${again}`;
}
