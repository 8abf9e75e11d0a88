import { plain } from "../lib/text.ts";
import { accessSync, constants } from "node:fs";
import { isAbsolute, join } from "node:path";
import { scalarOf } from "../config/values.ts";
import { distrust } from "../lib/trust.ts";
import { EXIT, reasonOf, SignalError, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { start } from "../process/exec.ts";
import { lstatOf } from "../lib/read-file.ts";
import { listDirectory } from "../store/files.ts";
import { recordEvent, type VmEvent } from "../store/history.ts";
import { HOST } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import { findVmHook, runLateHook, runVmHook } from "../vm/hooks.ts";
import { findOnPath } from "../vm/media.ts";
import { findHostdir, openUser, openVm, type Vm } from "../vm/find.ts";
import { foreignDirectory } from "../vm/ownership.ts";
import { writeJournal } from "./journal.ts";
import { isUnattended } from "../process/unattended.ts";

/** Time limit of the program, which may run unattended. */
const NOTIFY_MS = 60_000;

/** Facts about a new snapshot for the notification. */
export interface MadeSnapshot {
  vm: Vm;
  name: string;
  seconds: number;
  /** `S1: 4.0 GiB in 604 MiB, 7.1 s` */
  summary: string;
}

/**
 * Creates a snapshot with `work`, writes the outcome to the journal, and runs SNAPSHOT_NOTIFY with it, also on failure.
 */
export async function notifying(
  context: Context,
  name: string | undefined,
  work: () => Promise<MadeSnapshot>,
): Promise<void> {
  const started = performance.now();
  let made: MadeSnapshot;
  try {
    await runPreHook(context, name);
    made = await work();
  } catch (error) {
    const status = error instanceof VmError ? error.exitCode : EXIT.internal;
    record(context, { event: "snapshot failed", how: reasonOf(error), status });
    await note(context, `failed with status ${status}: ${reasonOf(error)}`, false);
    const outcome: Outcome = {
      VM_OUTCOME: "failed",
      VM_SNAPSHOT: name ?? "",
      VM_MESSAGE: reasonOf(error),
      VM_STATUS: String(status),
      VM_BYTES: "0",
      VM_SECONDS: ((performance.now() - started) / 1000).toFixed(1),
    };
    // If the VM's settings are invalid, the user's own settings still have the program.
    const vm = await openVm(context).catch(() => undefined);
    if (vm && isCallers(vm)) await runLateHook(context, vm, "post-backup", outcome);
    await notify(context, vm, outcome);
    throw error;
  }
  record(context, { event: "snapshot", snapshot: made.name });
  await note(context, `snapshot ${made.summary}`, true);
  const outcome: Outcome = {
    VM_OUTCOME: "ok",
    VM_SNAPSHOT: made.name,
    VM_MESSAGE: "",
    VM_STATUS: "0",
    VM_BYTES: String(sumFileBytes(join(made.vm.hostdir, HOST.backups, made.name))),
    VM_SECONDS: made.seconds.toFixed(1),
  };
  await notify(context, made.vm, outcome);
  await runVmHook(context, made.vm, "post-backup", outcome).catch((error: unknown) => {
    if (error instanceof SignalError) throw error;
    throw new VmError("other", `the snapshot ${made.name} is complete, but ${reasonOf(error)}`);
  });
}

const isCallers = ({ hostdir }: Vm): boolean => foreignDirectory(hostdir) === undefined;

/** A VM that cannot be read has no hook: the backup reports it. */
async function runPreHook(context: Context, name: string | undefined): Promise<void> {
  try {
    if (findVmHook(context, findHostdir(context), "pre-backup") === undefined) return;
  } catch {
    return;
  }
  const vm = await openVm(context).catch(() => undefined);
  if (vm && isCallers(vm)) await runVmHook(context, vm, "pre-backup", { VM_SNAPSHOT: name ?? "" });
}

const sumFileBytes = (directory: string): number =>
  listDirectory(directory).reduce((sum, name) => sum + (lstatOf(join(directory, name))?.size ?? 0), 0);

function record(context: Context, event: Omit<VmEvent, "at" | "vm">): void {
  try {
    recordEvent(context, findHostdir(context), event);
  } catch {
    // HOSTDIR does not exist, which is reported.
  }
}

/** One line in the journal, for unattended runs. */
async function note(context: Context, what: string, good: boolean): Promise<void> {
  if (!isUnattended()) return;
  try {
    await writeJournal(context, plain(`backup in ${findHostdir(context)}: ${what}`), good);
  } catch {
    // The error is on stderr already; a failed journal entry is ignored.
  }
}

/** Variables of the program and the hook. */
type Outcome = Record<
  "VM_OUTCOME" | "VM_SNAPSHOT" | "VM_MESSAGE" | "VM_STATUS" | "VM_BYTES" | "VM_SECONDS",
  string
>;

/** A failure of the program does not fail the backup. */
async function notify(context: Context, vm: Vm | undefined, outcome: Outcome): Promise<void> {
  let hostdir: string;
  try {
    hostdir = findHostdir(context);
  } catch {
    // The directory does not exist, which is reported: there is no VM to notify about.
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

/** @throws VmError if it must not be run */
function findNotifier(
  context: Context,
  { userNotify, settings }: Pick<Vm, "userNotify"> & { settings: Vm["settings"] | undefined },
): string | undefined {
  const wanted = scalarOf(userNotify);
  const ofVm = settings?.SNAPSHOT_NOTIFY ?? wanted;
  if (ofVm !== wanted && ofVm !== "")
    log.warn("ignoring SNAPSHOT_NOTIFY in guest.env: a VM's own settings cannot start programs");
  if (wanted === "" || ofVm === "") return undefined;
  const path = isAbsolute(wanted) ? wanted : findOnPath(context, wanted);
  if (path === undefined) throw new VmError("unavailable", `cannot run ${wanted}: not found on PATH`);
  accessSync(path, constants.X_OK);
  const reason = distrust(path);
  if (reason !== undefined) throw new VmError("config", `refusing to run ${path}: ${reason}`);
  return path;
}

async function runNotifier(path: string, env: Record<string, string>): Promise<void> {
  // Interruptions, which have ended everything else, are reported as well.
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
