import { noSpaceError, VmError } from "../lib/errors.ts";
import { saysDenied, saysNoSpace } from "../lib/program-messages.ts";
import { HURRY_MS, interruption, throwIfInterrupted } from "../process/signals.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { ArgsOf, ReplyOf } from "../qmp/commands.ts";
import { QmpTimeout } from "../qmp/errors.ts";

/** Arguments of one blockdev-backup job: source and target node, and what to copy. */
export interface CopyRequest {
  from: string;
  to: string;
  /** Copy only clusters that are dirty in this bitmap of `from`, or allocated in the top image. */
  only: { bitmap: string } | "top";
  /** Write compressed clusters. */
  compress: boolean;
  /** A guest runs in the same qemu: limit the load. */
  gently: boolean;
}

/** Prefix of job ids: identifies jobs that a killed command has left. */
export const JOB_PREFIX = "vm-copy-";

/**
 * Parallel requests of 64 KiB while a guest runs (qemu's default is 64): its CPUs wait for qemu's lock meanwhile. Measured
 * in a guest that slept for 10 ms at a time, on 2 cores: 125 ms late with 64, 16 ms without a job, 25 ms with 4; the copy
 * takes a fifth longer.
 */
const GENTLE_WORKERS = 4;

/** Time limit for a cancelled job to finish its requests. */
const CANCEL_MS = 300_000;

const PROGRESS_MS = 250;
const RETRY_MS = 20;

/**
 * Copies disks in parallel, inside qemu.
 * @param onProgress bytes copied, and bytes in total, of all disks together
 * @param speed bytes per second of all disks together; 0: no limit
 * @throws 73 if there is no space at the target, 74 for any other failure; all jobs are dismissed
 */
export async function copyDisks(
  qmp: QmpClient,
  requests: readonly CopyRequest[],
  onProgress: (doneBytes: number, totalBytes: number) => void,
  speed = 0,
): Promise<void> {
  let wake: (() => void) | undefined;
  qmp.onEvent(({ event }) => {
    if (event === "JOB_STATUS_CHANGE") wake?.();
  });
  const stop = (): void => wake?.();
  interruption.addEventListener("abort", stop);
  const started: string[] = [];
  const pause = async (): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    wake = resolve;
    const timer = setTimeout(resolve, PROGRESS_MS);
    await Promise.race([promise, qmp.closed]);
    clearTimeout(timer);
  };
  try {
    for (const [index, request] of requests.entries()) {
      const id = `${JOB_PREFIX}${index}`;
      await qmp.execute("blockdev-backup", buildJob(id, request, Math.ceil(speed / requests.length)));
      started.push(id);
    }
    for (;;) {
      throwIfInterrupted();
      const jobs = await findJobs(qmp, started);
      const failed = jobs.find(({ error }) => error !== undefined);
      if (failed) throw jobFailure(failed.error!);
      const sum = (key: "current-progress" | "total-progress"): number =>
        jobs.reduce((total, job) => total + job[key], 0);
      onProgress(sum("current-progress"), sum("total-progress"));
      if (jobs.every(({ status }) => status === "concluded")) break;
      await pause();
    }
  } finally {
    interruption.removeEventListener("abort", stop);
    await cancelJobs(qmp, started, pause).catch(() => {
      // qemu has exited, and the jobs with it.
    });
  }
}

function buildJob(
  id: string,
  { from, to, only, compress, gently }: CopyRequest,
  speed: number,
): ArgsOf<"blockdev-backup"> {
  const part =
    only === "top"
      ? ({ sync: "top" } as const)
      : // The bitmap is not cleared: the next snapshot needs it if this one fails.
        ({ sync: "bitmap", bitmap: only.bitmap, "bitmap-mode": "never" } as const);
  return {
    "job-id": id,
    device: from,
    target: to,
    ...part,
    compress,
    // A concluded job is kept until its error has been queried.
    "auto-dismiss": false,
    ...(gently ? { "x-perf": { "max-workers": GENTLE_WORKERS } } : {}),
    ...(speed ? { speed } : {}),
  };
}

export async function findJobs(qmp: QmpClient, ids?: readonly string[]): Promise<ReplyOf<"query-jobs">> {
  const all = await qmp.execute("query-jobs");
  return all.filter(({ id }) => (ids ? ids.includes(id) : id.startsWith(JOB_PREFIX)));
}

/** Cancels all copy jobs, including those of an earlier command. */
export const cancelAllJobs = (qmp: QmpClient): Promise<void> =>
  cancelJobs(qmp, undefined, () => Bun.sleep(RETRY_MS));

/**
 * Cancels running jobs, and dismisses all.
 * @throws QmpTimeout if a job does not finish: a disk hangs
 */
export async function cancelJobs(
  qmp: QmpClient,
  ids: readonly string[] | undefined,
  pause: () => Promise<void>,
): Promise<void> {
  const cancelled = new Set<string>();
  const started = Date.now();
  for (;;) {
    const jobs = await findJobs(qmp, ids);
    if (jobs.length === 0) return;
    if (Date.now() - started > (interruption.aborted ? HURRY_MS : CANCEL_MS))
      throw new QmpTimeout("cannot cancel the copy jobs: a disk does not respond");
    for (const { id, status } of jobs) {
      if (status === "concluded") await qmp.execute("job-dismiss", { id });
      else if (!cancelled.has(id)) {
        cancelled.add(id);
        await qmp.execute("block-job-cancel", { device: id, force: true }).catch(() => {
          // It has just concluded.
        });
      }
    }
    if (jobs.some(({ status }) => status !== "concluded")) await pause();
  }
}

const jobFailure = (message: string): VmError =>
  saysNoSpace(message)
    ? noSpaceError("cannot copy the disks")
    : new VmError("io", `cannot copy the disks: ${message}`, {
        reason: saysDenied(message) ? "denied" : undefined,
      });
