import { chmodSync, rmSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { isKernelPanic } from "../lib/program-messages.ts";
import { log } from "../lib/log.ts";
import { quoteLine } from "../lib/text.ts";
import { firstSignal, signalError, takeSignals, type StopSignal } from "../process/signals.ts";
import { buildQemuArgv } from "../qemu/argv.ts";
import { startQemu, type QemuEnd, type QemuSession } from "../qemu/session.ts";
import { buildRunScript } from "../qemu/script.ts";
import type { QmpEvent } from "../qmp/events.ts";
import { Channel } from "../rescue/channel.ts";
import { OutputWatch, readStatus } from "../rescue/output.ts";
import { lstatOf, readTail, remove, replaceFile } from "../store/files.ts";
import { JOB, RUN_FILES, WORK } from "../store/layout.ts";
import { consistencyOf, updateMark, type Mark, type RunEnd } from "../store/mark.ts";
import type { Context } from "../vm/context.ts";
import { GuestErrorMonitor } from "../vm/guest-errors.ts";
import { refuseExcess } from "../vm/limits.ts";
import type { Present } from "../store/workdir.ts";
import type { RescueRun } from "./rescue-machine.ts";

import { resumeRescue, type LiveRescue } from "./saved-state.ts";

/** How long a rescue that is to stop has for ending the job and putting the disks in order. */
const STOP_SECONDS = 15;
const STOP_AGAIN_MS = 1000;
/** How long it may take to switch itself off once the job's status is there. */
const POWER_OFF_SECONDS = 60;
const CONSOLE_LINES = 8;
/** A panic, and what stands around it. */
const CONSOLE_BYTES = 64 << 10;

type WriteLog = (piece: Uint8Array) => Promise<void>;

/** Why the rescue was ended from outside. */
type Stopped = { by: StopSignal } | { limit: string };

/**
 * Boots the rescue, follows the job, and waits until the rescue is off.
 * @param write takes the job's log, piece by piece
 * @returns the job's status
 * @throws 124 on a time limit, 74 when there is no status or the rescue was not switched off by itself
 */
export async function runRescue(
  context: Context,
  work: Present,
  run: RescueRun,
  write: WriteLog,
): Promise<number> {
  const before = consistencyOf(work.mark);
  const { machine, control } = await launch(context, work, run);
  let lastRun: RunEnd = "killed";
  try {
    const { end, stopped } = await follow(context, work, run, machine, control, write);
    const clean = end.shutdown?.reason === "guest-shutdown";
    // A job does not heal what a power cut left: only a run of the guest does.
    if (clean) lastRun = before === "crash-consistent" ? brokenEnd(work.mark) : "powered-off";
    const status = readStatus(join(work.dir, WORK.out));
    if (stopped) throw stoppedError(stopped, run.job);
    if (status === undefined || (!clean && status === 0)) throw diedError(work, run.job, end, status);
    return status;
  } finally {
    updateMark(work.dir, { lastRun });
    for (const name of RUN_FILES) remove(join(work.dir, name));
  }
}

/** What is said of disks that are as after a power cut: how the guest's own last run ended, where that is known. */
function brokenEnd({ lastRun = "killed" }: Mark): RunEnd {
  return lastRun === "unknown" ? "killed" : lastRun;
}

/** Goes on from the saved state where that can be; boots otherwise. */
async function launch(context: Context, work: Present, run: RescueRun): Promise<LiveRescue> {
  const { job, machine, capabilities } = run;
  const { prog, version } = context;
  log.info(`waiting for the rescue ${run.rescue.name}`);
  const argv = buildQemuArgv(machine, capabilities);
  refuseExcess(`run the job ${job}`, machine, argv);
  const script = join(work.dir, WORK.rescueScript);
  replaceFile(
    script,
    buildRunScript(argv, work.dir, `Runs the rescue of the job ${job}; written by ${prog} ${version}`),
  );
  chmodSync(script, 0o700);
  const logPath = join(work.dir, WORK.qemuLog);
  for (const name of [WORK.qemuLog, WORK.rescueConsoleLog]) rmSync(join(work.dir, name), { force: true });
  updateMark(work.dir, { lastRun: "unknown" });
  const errors = new GuestErrorMonitor(work.dir);
  try {
    const onEvent = (event: QmpEvent): void => errors.onEvent(event);
    let launched: LiveRescue | undefined = await resumeRescue(context, work, run, onEvent);
    if (!launched) {
      remove(logPath);
      const booted = await startQemu({
        argv,
        directory: work.dir,
        monitor: join(work.dir, WORK.monitor),
        logPath,
        script,
        arch: run.machine.arch,
        onEvent,
      });
      launched = { machine: booted, control: await Channel.connect(join(work.dir, WORK.control)) };
    }
    const { qmp, ended } = launched.machine;
    errors.qmp = qmp;
    void ended.then(() => errors[Symbol.dispose]());
    return launched;
  } catch (error) {
    updateMark(work.dir, { lastRun: work.mark.lastRun });
    for (const name of RUN_FILES) remove(join(work.dir, name));
    throw error;
  }
}

/** Streams the log and keeps the time limits until qemu has ended. */
async function follow(
  context: Context,
  work: Present,
  { rescue, job }: RescueRun,
  machine: QemuSession,
  line: Channel,
  write: WriteLog,
): Promise<{ end: QemuEnd; stopped: Stopped | undefined }> {
  using control = line;
  using ask: Channel = await Channel.connect(join(work.dir, WORK.ask), (words) => void answer(words));
  const over = new AbortController();
  const answer = async (words: string): Promise<void> => {
    const question = /^ask (.*)$/.exec(words)?.[1];
    if (question === undefined) return;
    const text = await context.ask?.(question, over.signal);
    ask.send(text === undefined ? "none" : `answer ${text}`);
  };
  let stopped: Stopped | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let again: ReturnType<typeof setInterval> | undefined;
  const failed = Promise.withResolvers<never>();
  const kill = (): void => void machine.end().catch(failed.reject);
  const out = join(work.dir, WORK.out);
  let started = false;
  const stop = (why: Stopped): void => {
    clearTimeout(timer);
    // Until the job has started nothing is mounted that would have to be put in order.
    const idle = !started && lstatOf(join(out, JOB.started)) === undefined;
    if (stopped || idle) kill();
    if (stopped) return;
    stopped = why;
    if (idle) return;
    control.send("stop");
    // Said before the runner listened it was said to nobody.
    again = setInterval(() => control.send("stop"), STOP_AGAIN_MS);
    // A rescue whose runner does not listen may know its power button.
    machine.qmp.execute("system_powerdown").catch(() => {});
    timer = setTimeout(kill, STOP_SECONDS * 1000);
  };
  const limit = (seconds: number | undefined, what: string): void => {
    // The time for stopping is running then.
    if (stopped) return;
    clearTimeout(timer);
    if (seconds !== undefined)
      timer = setTimeout(() => stop({ limit: `${what} within ${seconds} seconds` }), seconds * 1000);
  };
  using _signals = takeSignals((by) => {
    log.info(stopped ? "ending the rescue now" : "stopping the job; once more ends the rescue at once");
    stop({ by });
  });
  // One that came while the rescue was being started.
  const early = firstSignal();
  if (early) stop({ by: early });
  const { RESCUE_START_TIMEOUT, TIMEOUT } = rescue.settings;
  limit(RESCUE_START_TIMEOUT, `the rescue did not start the job ${job}`);
  using output = new OutputWatch(
    out,
    {
      started: () => {
        started = true;
        log.info(`the job ${job} has started`);
        limit(TIMEOUT, `the job ${job} did not end`);
      },
      finished: () => {
        clearTimeout(timer);
        timer = setTimeout(kill, (stopped ? STOP_SECONDS : POWER_OFF_SECONDS) * 1000);
      },
    },
    write,
  );
  try {
    const end = await Promise.race([machine.ended, failed.promise]);
    await output.drain();
    return { end, stopped };
  } finally {
    clearTimeout(timer);
    clearInterval(again);
    over.abort();
  }
}

function stoppedError(stopped: Stopped, job: string): VmError {
  if ("by" in stopped) return signalError(stopped.by, `the job ${job} was ended by ${stopped.by}`);
  return new VmError("timeout", stopped.limit, {
    hint: "the rescue was ended; limits: --timeout for the job, RESCUE_START_TIMEOUT for the start",
  });
}

/** No status, or nobody knows whether what the job wrote has reached the disks. */
function diedError(work: Present, job: string, end: QemuEnd, status: number | undefined): VmError {
  const { shutdown, signal } = end;
  const how = shutdown
    ? `qemu ended because of ${shutdown.reason}`
    : `qemu was ended by ${signal ?? "itself"}`;
  const what =
    status === undefined
      ? `the rescue ended without a status of the job ${job}`
      : `the job ${job} ended well, but the rescue was not switched off in order`;
  const logFile = join(work.dir, WORK.rescueConsoleLog);
  const lines = (readTail(logFile, CONSOLE_BYTES) ?? "")
    .split("\n")
    .map((line) => line.replaceAll(/\x1b\[[0-9;?]*[A-Za-z]/g, "").replaceAll(/\p{Cc}/gu, ""))
    .map(quoteLine)
    .filter((line) => line.trim() !== "");
  const last = lines.slice(-CONSOLE_LINES);
  // A panic says what it is before it says where.
  const panic = lines.findLast(isKernelPanic);
  if (panic !== undefined && !last.includes(panic)) last.unshift(panic);
  const said = last.length > 0 ? `; its console's last lines:\n  ${last.join("\n  ")}` : "";
  return new VmError("io", `${what} (${how})${said}`, { hint: `all of its console: ${logFile}` });
}
