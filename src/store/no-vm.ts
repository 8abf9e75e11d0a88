import { basename, join } from "node:path";
import { commandLine, programLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { shellQuote } from "../lib/shell.ts";
import { plain } from "../lib/text.ts";
import { lstatOf } from "../lib/read-file.ts";
import { listDirectory } from "./files.ts";
import { HOST, isDiskName, READY, REMOVING, SNAPSHOT } from "./layout.ts";

/** HOSTDIR contains no VM. */
export class NoVm extends VmError {
  constructor(hostdir: string) {
    super("noInput", `there is no VM in ${hostdir}`, {
      hint: `create one here: ${createLine(hostdir)}\nlist all VMs: ${programLine("list")}`,
    });
  }
}

export const noVmIn = (hostdir: string): VmError => new NoVm(hostdir);

/** Does HOSTDIR have settings, working files or snapshots, or remains of an interrupted command? */
export function hasVm(hostdir: string): boolean {
  const names = [HOST.workLink, HOST.guestEnv, HOST.backups, READY, REMOVING];
  try {
    return names.some((name) => lstatOf(join(hostdir, name))) || listDirectory(hostdir).some(isDiskName);
  } catch {
    // An error here is reported where the VM is read.
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

/** Does HOSTDIR have a directory that looks like a snapshot? */
export function hasSnapshots(hostdir: string): boolean {
  const backups = join(hostdir, HOST.backups);
  try {
    return listDirectory(backups).some((name) => lstatOf(join(backups, name, SNAPSHOT.timestamp)));
  } catch {
    return false;
  }
}

/** Hint for a VM without working files. */
export function hintForWork(hostdir: string): string {
  if (hasSnapshots(hostdir)) return `restore the last snapshot: ${commandLine("restore")}`;
  const again = createLine(hostdir);
  if (!lstatOf(join(hostdir, HOST.guestEnv))) return `create the VM again: ${again}`;
  const path = join(hostdir, HOST.guestEnv);
  return `create the VM again, as no snapshot is left: mv ${shellQuote(path)} ${shellQuote(`${path}.old`)} && ${again}`;
}
