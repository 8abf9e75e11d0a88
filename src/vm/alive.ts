import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { formatSize } from "../lib/size.ts";
import { findInsertedCd, listAttached, type AttachedDisk } from "../live/attached.ts";
import { isListening } from "../process/unix-socket.ts";
import { QmpClient } from "../qmp/client.ts";
import { lstatOf } from "../lib/read-file.ts";
import { freeBytes } from "../store/files.ts";
import { isSuspended } from "../store/is-suspended.ts";
import { SUSPENDING, WORK } from "../store/layout.ts";
import type { Workdir } from "../store/workdir.ts";
import { describeResumeCondition, findGuestErrors, hasPanicked } from "./guest-errors.ts";

/** How long to wait for a monitor that another command uses. */
const CONNECT_MS = 1000;

/** A qemu that uses the working files. */
export interface Alive {
  /** `suspended`: it loads its saved state, or a command that had it do that was killed. */
  state: "running" | "paused" | "suspended";
  runState: string;
  /** It is a job's rescue: only that has a control channel. */
  job: boolean;
  /** The guest's kernel has panicked. */
  panicked: boolean;
  /** What the running guest's machine has; absent for a job, and if its monitor does not answer. */
  media?: RunningMedia | undefined;
}

/** Disks and CD of a running machine. */
export interface RunningMedia {
  disks: AttachedDisk[];
  /** Its image; undefined: none. */
  cd: string | undefined;
}

/**
 * Queries the state of a VM's qemu.
 * @param answers its monitor listens; otherwise it only has the disks open
 */
export async function askAlive(work: Workdir, answers: boolean): Promise<Alive | undefined> {
  const job = await isListening(join(work.dir, WORK.control));
  const machine = answers ? await queryMachine(work, !job) : { runState: "running" };
  if (machine === undefined) return undefined;
  const { runState, media } = machine;
  const runs = runState === "running" || runState === "silent";
  const state = runs ? "running" : !job && isSuspended(work.dir) ? "suspended" : "paused";
  return { state, runState, job, panicked: hasPanicked(work), media };
}

interface MachineState {
  /** qemu's state (qapi/run-state.json, RunState); `silent` if it does not answer. */
  runState: string;
  media?: RunningMedia | undefined;
}

async function queryMachine(work: Workdir, withMedia: boolean): Promise<MachineState | undefined> {
  const socket = join(work.dir, WORK.qmp);
  try {
    const qmp = await QmpClient.connect(socket, CONNECT_MS, CONNECT_MS);
    try {
      const [{ running, status }, media] = await Promise.all([
        qmp.execute("query-status"),
        withMedia ? readMedia(qmp) : undefined,
      ]);
      return { runState: running ? "running" : status, media };
    } finally {
      qmp.close();
    }
  } catch (error) {
    // Another command uses the monitor, or qemu has just exited.
    return error instanceof VmError || (await isListening(socket)) ? { runState: "silent" } : undefined;
  }
}

/** @returns undefined if qemu does not tell */
async function readMedia(qmp: QmpClient): Promise<RunningMedia | undefined> {
  try {
    const [disks, cd] = await Promise.all([listAttached(qmp), findInsertedCd(qmp)]);
    return { disks, cd };
  } catch {
    return undefined;
  }
}

/** Describes errors inside the running machine. */
export function describeErrors({ dir }: Workdir, { runState, job }: Alive): string[] {
  const errors = findGuestErrors(dir);
  const texts = errors.map(({ kind, text }) =>
    kind === "no-space" ? `${text}; when ${describeResumeCondition(dir)}: ${commandLine("resume")}` : text,
  );
  // The log of events lacks the error if there was no space for it, either.
  if (runState === "io-error" && !errors.some(({ kind }) => kind === "no-space" || kind === "paused"))
    texts.push(
      `guest paused: I/O error on one of its disks; ${formatSize(freeBytes(dir))} are free in ${dir}`,
    );
  if (runState === "silent")
    texts.push(
      `qemu does not answer: its monitor is in use, or it hangs (kill it: ${commandLine("stop", "--force")})`,
    );
  if (lstatOf(join(dir, SUSPENDING)))
    texts.push(`being suspended; after a 'suspend' that was interrupted: ${commandLine("resume")}`);
  else if (isSuspended(dir) && !job)
    texts.push(
      `being resumed from its saved state; after a 'run' that was interrupted: ${commandLine("run", "--detach")}`,
    );
  return texts;
}
