import { noSpaceError, VmError } from "../lib/errors.ts";
import { saysDenied, saysNoSpace } from "../lib/program-messages.ts";
import { HURRY_MS, interruption, throwIfInterrupted } from "../process/signals.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { ArgsOf, ReplyOf } from "../qmp/commands.ts";
import { QmpTimeout } from "../qmp/errors.ts";

/** A disk to copy, by node names. */
export interface CopyRequest {
  from: string;
  to: string;
  /** Only what this bitmap of `from` notes, or what is allocated in the image itself, not in those below it. */
  only: { bitmap: string } | "top";
  /** Write it compressed. */
  compress: boolean;
  /** A guest runs in the same qemu. */
  gently: boolean;
}

/** Our jobs in a qemu begin with this: what a killed command left is known by it. */
const JOB_PREFIX = "vm-copy-";

/**
 * How many pieces (64 KiB, qemu's own number is 64) are under way at a time where a guest runs: between them its CPUs
 * wait for qemu's lock. Measured within a guest that slept 10 ms at a time, on 2 cores: 125 ms late with 64, 16 ms
 * with none, 25 ms with these, and the copy takes a fifth longer.
 */
const GENTLE_WORKERS = 4;

/** How long a cancelled job may take to end what it has begun. */
const END_MS = 300_000;

const PROGRESS_MS = 250;
const RETRY_MS = 20;

/**
 * Copies disks side by side, inside qemu.
 * @param onProgress bytes done and bytes there are to do, of all disks together
 * @param speed bytes per second of all together; 0: no limit
 * @throws 73 for want of room at the target, 74 when anything else fails; none of the jobs is left
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
    await endJobs(qmp, started, pause).catch(() => {
      // qemu has gone, and the jobs with it.
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
      : // The bitmap stays as it is: should this fail, the next one needs it.
        ({ sync: "bitmap", bitmap: only.bitmap, "bitmap-mode": "never" } as const);
  return {
    "job-id": id,
    device: from,
    target: to,
    ...part,
    compress,
    // Told of, not dismissed, when it ends: how it ended has to be asked.
    "auto-dismiss": false,
    ...(gently ? { "x-perf": { "max-workers": GENTLE_WORKERS } } : {}),
    ...(speed ? { speed } : {}),
  };
}

async function findJobs(qmp: QmpClient, ids?: readonly string[]): Promise<ReplyOf<"query-jobs">> {
  const all = await qmp.execute("query-jobs");
  return all.filter(({ id }) => (ids ? ids.includes(id) : id.startsWith(JOB_PREFIX)));
}

/** Ends those of an earlier command, too. */
export const endAllJobs = (qmp: QmpClient): Promise<void> =>
  endJobs(qmp, undefined, () => Bun.sleep(RETRY_MS));

/**
 * Cancels what still runs, and dismisses all.
 * @throws QmpTimeout when a job does not end: a disk under it hangs
 */
async function endJobs(
  qmp: QmpClient,
  ids: readonly string[] | undefined,
  pause: () => Promise<void>,
): Promise<void> {
  const cancelled = new Set<string>();
  const begun = Date.now();
  for (;;) {
    const jobs = await findJobs(qmp, ids);
    if (jobs.length === 0) return;
    if (Date.now() - begun > (interruption.aborted ? HURRY_MS : END_MS))
      throw new QmpTimeout("qemu does not end the copying of disks: a disk hangs");
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

const jobFailure = (words: string): VmError =>
  saysNoSpace(words)
    ? noSpaceError("cannot copy the disks")
    : new VmError("io", `cannot copy the disks: ${words}`, {
        reason: saysDenied(words) ? "denied" : undefined,
      });
