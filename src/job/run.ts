import { chmodSync, rmSync } from "node:fs";
import { join } from "node:path";
import { noSpaceError, VmError } from "../lib/errors.ts";
import { isKernelPanic } from "../lib/program-messages.ts";
import { log } from "../lib/log.ts";
import { quoteLine } from "../lib/text.ts";
import { firstSignal, signalError, takeSignals, type StopSignal } from "../process/signals.ts";
import { buildQemuArgv } from "../qemu/argv.ts";
import { FLUSH_STEPS } from "../qemu/end.ts";
import { QUICK_MEMORY, startQemu, type QemuEnd } from "../qemu/session.ts";
import { buildRunScript } from "../qemu/script.ts";
import type { QmpEvent } from "../qmp/events.ts";
import { Channel } from "../rescue/channel.ts";
import { OutputWatch, ToldStatus } from "../rescue/output.ts";
import { type Mark, type RunEnd, consistencyOf } from "../store/mark-types.ts";
import { remove } from "../store/remove.ts";
import { readTail } from "../lib/read-file.ts";
import { replaceVolatile } from "../store/files.ts";
import { RUN_FILES, WORK } from "../store/layout.ts";
import { updateMark } from "../store/mark.ts";
import type { Context } from "../vm/context.ts";
import { GuestErrorMonitor } from "../vm/guest-errors.ts";
import { refuseExcess } from "../vm/limits.ts";
import type { Workdir } from "../store/workdir.ts";
import type { RescueRun } from "./rescue-machine.ts";
import { resumeRescue, type RunningRescue } from "./saved-state.ts";

/** Time limit for a rescue to stop the job, and to unmount and sync the disks. */
const STOP_SECONDS = 15;
const STOP_AGAIN_MS = 1000;
/** Time limit for its shutdown once the job's status is written. */
const POWER_OFF_SECONDS = 60;
const CONSOLE_LINES = 8;
/** Enough for a kernel panic with its context. */
const CONSOLE_BYTES = 64 << 10;

type WriteLog = (piece: Uint8Array) => Promise<void>;

/** Why this program stopped the rescue: by a signal, at a time limit (its message), or without space (start of its message). */
type StopReason = { by: StopSignal } | { limit: string } | { noSpace: string };

interface StartedRescue extends RunningRescue {
  /** Resolved when qemu has paused the rescue for lack of space, with the start of the error message. */
  noSpace: Promise<string>;
}

/**
 * Boots the rescue, follows the job, and waits until the rescue is off.
 * @param write receives the job's log, piece by piece
 * @returns the job's status
 * @throws 124 on a time limit, 74 if there is no status, or the rescue did not shut down after a successful job
 */
export async function runRescue(
  context: Context,
  work: Workdir,
  run: RescueRun,
  write: WriteLog,
): Promise<number> {
  const before = consistencyOf(work.mark);
  const told = new ToldStatus(join(work.dir, WORK.out));
  const started = await startRescue(context, work, run, told.hear);
  const { machine, settled } = started;
  // All is unmounted and written: what the guest would still do to be off is of no use.
  void told.complete.then(() => machine.end(FLUSH_STEPS)).catch(() => {});
  let lastRun: RunEnd | undefined = "killed";
  let interruptedJob: Mark["interruptedJob"] = true;
  try {
    const { end, stopped } = await followJob(context, work, run, started, told, write);
    const clean = end.shutdown?.reason === "guest-shutdown" || (told.isComplete && end.status === 0);
    // A job does not repair crash-consistent disks: only a run of the guest does.
    if (clean) {
      lastRun = before === "crash-consistent" ? crashedEnd(work.mark) : "powered-off";
      ({ interruptedJob } = work.mark);
    }
    const { status } = told;
    if (stopped) throw stoppedError(stopped, run);
    if (status === undefined || (!clean && status === 0)) throw rescueExitError(work, run, end, status);
    return status;
  } finally {
    await settled;
    const onlyJobs = work.mark.lastRun === undefined || work.mark.onlyJobs;
    updateMark(work.dir, { lastRun, interruptedJob, job: undefined, onlyJobs: onlyJobs || undefined });
    for (const name of RUN_FILES) remove(join(work.dir, name));
  }
}

/** Exit reason to record for crash-consistent disks: that of the guest's own last run, if it has run, and that is known. */
const crashedEnd = ({ lastRun }: Mark): RunEnd | undefined => (lastRun === "unknown" ? "killed" : lastRun);

/** Restores the rescue's saved state if possible, or else boots it. */
async function startRescue(
  context: Context,
  work: Workdir,
  run: RescueRun,
  hear: (line: string) => void,
): Promise<StartedRescue> {
  const { job, machine, capabilities } = run;
  const { prog, version } = context;
  if (!run.quiet) log.info(`waiting for the rescue ${run.rescue.name}`);
  const argv = buildQemuArgv(machine, capabilities);
  refuseExcess(`run the job ${job}`, machine, argv);
  const script = join(work.dir, WORK.rescueScript);
  const logPath = join(work.dir, WORK.qemuLog);
  for (const name of [WORK.qemuLog, WORK.rescueConsoleLog]) rmSync(join(work.dir, name), { force: true });
  let recorded = false;
  /** Before the guest's disks can change. */
  const recordStart = (): void => {
    if (recorded) return;
    replaceVolatile(
      script,
      buildRunScript(argv, work.dir, `Runs the rescue of the job ${job}; written by ${prog} ${version}`),
    );
    chmodSync(script, 0o700);
    updateMark(work.dir, { lastRun: "unknown", interruptedJob: true, job: process.pid });
    recorded = true;
  };
  const noSpace = Promise.withResolvers<string>();
  const { cannot } = run;
  const errors = new GuestErrorMonitor(
    work.dir,
    cannot === undefined ? undefined : () => noSpace.resolve(cannot),
  );
  try {
    const onEvent = (event: QmpEvent): void => errors.onEvent(event);
    const listeners = { onEvent, hear, recordStart };
    let launched: RunningRescue | undefined = await resumeRescue(context, work, run, listeners);
    if (!launched) {
      recordStart();
      remove(logPath);
      const booted = await startQemu({
        argv,
        jail: await run.confine(machine, work.dir),
        directory: work.dir,
        monitor: join(work.dir, WORK.monitor),
        logPath,
        script,
        arch: run.machine.arch,
        env: QUICK_MEMORY,
        onEvent,
      });
      launched = { machine: booted, control: await Channel.connect(join(work.dir, WORK.control), hear) };
    }
    const { qmp, ended } = launched.machine;
    errors.qmp = qmp;
    void ended.then(() => errors[Symbol.dispose]());
    return { ...launched, noSpace: noSpace.promise };
  } catch (error) {
    const { lastRun, interruptedJob } = work.mark;
    updateMark(work.dir, { lastRun, interruptedJob, job: undefined });
    for (const name of RUN_FILES) remove(join(work.dir, name));
    throw error;
  }
}

/** Streams the log, and enforces the time limits, until qemu exits. */
async function followJob(
  context: Context,
  work: Workdir,
  { rescue, job, quiet, stopping, onStarted }: RescueRun,
  { machine, control: channel, noSpace }: StartedRescue,
  told: ToldStatus,
  write: WriteLog,
): Promise<{ end: QemuEnd; stopped: StopReason | undefined }> {
  using control = channel;
  using ask: Channel = await Channel.connect(join(work.dir, WORK.ask), (line) => void answer(line));
  const exited = new AbortController();
  const answer = async (line: string): Promise<void> => {
    const question = /^ask (.*)$/.exec(line)?.[1];
    if (question === undefined) return;
    const text = await context.ask?.(question, exited.signal);
    ask.send(text === undefined ? "none" : `answer ${text}`);
  };
  let stopped: StopReason | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let again: ReturnType<typeof setInterval> | undefined;
  const failed = Promise.withResolvers<never>();
  const kill = (): void => void machine.end().catch(failed.reject);
  const stop = (why: StopReason): void => {
    clearTimeout(timer);
    // Before the job starts, nothing is mounted that must be unmounted.
    const idle = !told.started;
    if (stopped || idle) kill();
    if (stopped) return;
    stopped = why;
    if (idle) return;
    control.send("stop");
    // The runner misses it until it listens.
    again = setInterval(() => control.send("stop"), STOP_AGAIN_MS);
    // A rescue whose runner does not listen may handle its power button.
    machine.qmp.execute("system_powerdown").catch(() => {});
    timer = setTimeout(kill, STOP_SECONDS * 1000);
  };
  const limit = (seconds: number | undefined, what: string): void => {
    // STOP_SECONDS has been started already.
    if (stopped) return;
    clearTimeout(timer);
    if (seconds !== undefined)
      timer = setTimeout(() => stop({ limit: `${what} within ${seconds} seconds` }), seconds * 1000);
  };
  void noSpace.then((cannot) => {
    stopped ??= { noSpace: cannot };
    // The rescue is paused: it cannot end by itself.
    kill();
  });
  using _signals = takeSignals((by) => {
    log.info(stopped ? "killing the rescue" : `${stopping ?? "stopping the job"}; repeat to kill the rescue`);
    stop({ by });
  });
  // Received while the rescue was being started.
  const early = firstSignal();
  if (early) stop({ by: early });
  const { RESCUE_START_TIMEOUT, TIMEOUT } = rescue.settings;
  limit(RESCUE_START_TIMEOUT, `the rescue did not start the job ${job}`);
  using output = new OutputWatch(
    join(work.dir, WORK.out),
    told,
    {
      started: () => {
        if (!quiet) log.info(`the job ${job} has started`);
        limit(TIMEOUT, `the job ${job} did not finish`);
        onStarted?.();
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
    exited.abort();
  }
}

function stoppedError(stopped: StopReason, { job, quiet }: RescueRun): VmError {
  if ("by" in stopped)
    return signalError(stopped.by, `${quiet ? "" : `the job ${job} was `}stopped by ${stopped.by}`);
  if ("noSpace" in stopped) return noSpaceError(stopped.noSpace);
  return new VmError("timeout", stopped.limit, {
    hint: "raise the limit: --timeout for the job, RESCUE_START_TIMEOUT for the start of the rescue",
  });
}

/** There is no status, or the job's writes may not have reached the disks. */
function rescueExitError(
  work: Workdir,
  { job, quiet, cannot }: RescueRun,
  end: QemuEnd,
  status: number | undefined,
): VmError {
  const { shutdown, signal } = end;
  const how = shutdown
    ? `qemu exited: ${shutdown.reason}`
    : signal
      ? `qemu was killed by ${signal}`
      : "qemu exited without a shutdown event";
  const what =
    status === undefined
      ? `${quiet && cannot !== undefined ? `${cannot}: ` : ""}the rescue exited without a status${quiet ? "" : ` of the job ${job}`}`
      : `the job ${job} succeeded, but the rescue did not shut down`;
  const logFile = join(work.dir, WORK.rescueConsoleLog);
  const lines = (readTail(logFile, CONSOLE_BYTES) ?? "")
    .split("\n")
    .map((line) => line.replaceAll(/\x1b\[[0-9;?]*[A-Za-z]/g, "").replaceAll(/\p{Cc}/gu, ""))
    .map(quoteLine)
    .filter((line) => line.trim() !== "");
  const last = lines.slice(-CONSOLE_LINES);
  // A panic's message precedes its stack trace.
  const panic = lines.findLast(isKernelPanic);
  if (panic !== undefined && !last.includes(panic)) last.unshift(panic);
  const tail = last.length > 0 ? `; last lines of its console:\n  ${last.join("\n  ")}` : "";
  return new VmError("io", `${what} (${how})${tail}`, { hint: `see its console log: ${logFile}` });
}
