import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { formatSize } from "../lib/size.ts";
import { isListening } from "../process/unix-socket.ts";
import { QmpClient } from "../qmp/client.ts";
import { freeBytes } from "../store/files.ts";
import { WORK } from "../store/layout.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Context } from "./context.ts";
import { describeRoom, findGuestErrors } from "./guest-errors.ts";

/** How long a qemu that talks to another command is waited for. */
const CONVERSATION_MS = 1000;

/** A qemu that uses the working files. */
export interface Alive {
  state: "running" | "paused";
  runState: string;
  /** It is a job's rescue: the guest has no line for its runner. */
  job: boolean;
}

/**
 * Asks the qemu of a VM.
 * @param answers its monitor listens; otherwise it only has the disks open
 */
export async function askAlive(work: Workdir, answers: boolean): Promise<Alive | undefined> {
  const runState = answers ? await readRunState(work) : "running";
  if (runState === undefined) return undefined;
  const job = await isListening(join(work.dir, WORK.control));
  return { state: runState === "running" || runState === "silent" ? "running" : "paused", runState, job };
}

/** As qemu tells it (qapi/run-state.json, RunState); `silent` when it does not answer. */
async function readRunState(work: Workdir): Promise<string | undefined> {
  const socket = join(work.dir, WORK.qmp);
  try {
    const qmp = await QmpClient.connect(socket, CONVERSATION_MS, CONVERSATION_MS);
    try {
      const { running, status } = await qmp.execute("query-status");
      return running ? "running" : status;
    } finally {
      qmp.close();
    }
  } catch (error) {
    // It talks to somebody else, or has just gone.
    return error instanceof VmError || (await isListening(socket)) ? "silent" : undefined;
  }
}

/** What is wrong inside the running machine, for people. */
export function describeErrors({ prog }: Context, { dir }: Workdir, { runState }: Alive): string[] {
  const errors = findGuestErrors(dir);
  const texts = errors.map(({ kind, text }) =>
    kind === "no-room" ? `${text}; when ${describeRoom(dir)}: ${prog} resume` : text,
  );
  // Where there was no room for the log of events, either.
  if (runState === "io-error" && !errors.some(({ kind }) => kind === "no-room" || kind === "paused"))
    texts.push(`the guest is paused: a disk of it fails; ${formatSize(freeBytes(dir))} are free in ${dir}`);
  if (runState === "silent")
    texts.push("qemu does not answer: another command talks to it, or it hangs (stop --force ends it)");
  return texts;
}
