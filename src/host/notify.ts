import { plain } from "../lib/text.ts";
import { accessSync, constants } from "node:fs";
import { isAbsolute, join } from "node:path";
import { scalarOf } from "../config/values.ts";
import { distrust } from "../lib/trust.ts";
import { EXIT, reasonOf, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { start } from "../process/exec.ts";
import { listDirectory, lstatOf } from "../store/files.ts";
import { HOST } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import { findOnPath } from "../vm/media.ts";
import { findHostdir, openUser, openVm, type Vm } from "../vm/open.ts";
import { writeJournal } from "./journal.ts";
import { isUnattended } from "../process/unattended.ts";

/** How long the program may take: nobody may be there to end it. */
const NOTIFY_MS = 60_000;

/** What is told of a snapshot that was made. */
export interface MadeSnapshot {
  vm: Vm;
  name: string;
  seconds: number;
  /** `S1: 4.0 GiB in 604 MiB, 7.1 s` */
  summary: string;
}

/**
 * Makes a snapshot by `work`, notes in the journal how that went, and runs SNAPSHOT_NOTIFY with the outcome, whatever
 * it is.
 */
export async function notifying(
  context: Context,
  name: string | undefined,
  work: () => Promise<MadeSnapshot>,
): Promise<void> {
  const started = performance.now();
  let made: MadeSnapshot;
  try {
    made = await work();
  } catch (error) {
    const status = error instanceof VmError ? error.exitCode : EXIT.internal;
    await note(context, `failed with status ${status}: ${reasonOf(error)}`, false);
    // Where the VM's settings are what failed, the user's own still say whom to tell.
    await notify(context, await openVm(context).catch(() => undefined), {
      VM_OUTCOME: "failed",
      VM_SNAPSHOT: name ?? "",
      VM_MESSAGE: reasonOf(error),
      VM_STATUS: String(status),
      VM_BYTES: "0",
      VM_SECONDS: ((performance.now() - started) / 1000).toFixed(1),
    });
    throw error;
  }
  await note(context, `snapshot ${made.summary}`, true);
  await notify(context, made.vm, {
    VM_OUTCOME: "ok",
    VM_SNAPSHOT: made.name,
    VM_MESSAGE: "",
    VM_STATUS: "0",
    VM_BYTES: String(sizeOf(join(made.vm.hostdir, HOST.backups, made.name))),
    VM_SECONDS: made.seconds.toFixed(1),
  });
}

const sizeOf = (directory: string): number =>
  listDirectory(directory).reduce((sum, name) => sum + (lstatOf(join(directory, name))?.size ?? 0), 0);

/** One line about what was done where nobody looked on. */
async function note(context: Context, what: string, good: boolean): Promise<void> {
  if (!isUnattended()) return;
  try {
    await writeJournal(context, plain(`backup in ${findHostdir(context)}: ${what}`), good);
  } catch {
    // It has been said on stderr what is wrong; that it could not be noted, too, helps nobody.
  }
}

/** Its failure is no failure of the backup. */
async function notify(context: Context, vm: Vm | undefined, outcome: Record<string, string>): Promise<void> {
  let hostdir: string;
  try {
    hostdir = findHostdir(context);
  } catch {
    // There is no such directory, which is being said: no VM that anybody could be told of.
    return;
  }
  try {
    const program = findNotifier(context, vm ?? { ...(await openUser(context)), settings: undefined });
    if (program === undefined) return;
    const env = { VM_NAME: vm?.settings.GUESTNAME ?? "", VM_HOSTDIR: hostdir, ...outcome };
    await runNotifier(program, env);
  } catch (error) {
    log.warn(`SNAPSHOT_NOTIFY: ${reasonOf(error)}`);
  }
}

/** @throws VmError when it is not to be run */
function findNotifier(
  context: Context,
  { userNotify, settings }: Pick<Vm, "userNotify"> & { settings: Vm["settings"] | undefined },
): string | undefined {
  const wanted = scalarOf(userNotify);
  const ofVm = settings?.SNAPSHOT_NOTIFY ?? wanted;
  if (ofVm !== wanted && ofVm !== "")
    log.warn("SNAPSHOT_NOTIFY in guest.env is not heeded: a VM's own settings start no program");
  if (wanted === "" || ofVm === "") return undefined;
  const path = isAbsolute(wanted) ? wanted : findOnPath(context, wanted);
  if (path === undefined) throw new VmError("unavailable", `${wanted} is not found on PATH`);
  accessSync(path, constants.X_OK);
  const reason = distrust(path);
  if (reason !== undefined) throw new VmError("config", `${path} is not run: ${reason}`);
  return path;
}

async function runNotifier(path: string, env: Record<string, string>): Promise<void> {
  // Also to be told of an interruption: that has ended everything else.
  const child = start([path], {
    env,
    stdout: 2,
    stderr: 2,
    runAs: "user",
    keepOnInterrupt: true,
    watched: true,
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), NOTIFY_MS);
  const { status, signal } = await child.done;
  clearTimeout(timer);
  if (status === 0) return;
  const how = signal ? `was ended by ${signal}` : `ended with status ${status}`;
  throw new VmError("other", `${path} ${how}`);
}
