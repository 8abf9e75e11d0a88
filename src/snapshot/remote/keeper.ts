/**
 * Serves the disks of a running VM that are still in the repository, as a process of its own: mounts it, has qemu copy the
 * disks, mounts it again when it was away, and records when all is here. Whenever it dies, reads fail and qemu pauses the guest:
 * `resume` starts another.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { reasonOf } from "../../lib/errors.ts";
import { lstatOf, readSmall, realPath } from "../../lib/read-file.ts";
import { log } from "../../lib/log.ts";
import { QmpClient } from "../../qmp/client.ts";
import { interruption, throwIfInterrupted } from "../../process/signals.ts";
import { lockVm } from "../../store/lock.ts";
import { WORK } from "../../store/layout.ts";
import { replaceVolatile } from "../../store/files.ts";
import { remove } from "../../store/remove.ts";
import { removeTree } from "../../store/temporary.ts";
import { resolveWork, type Workdir } from "../../store/workdir.ts";
import {
  continueCopying,
  listArriving,
  readCopied,
  REASON,
  reconnectDisks,
  settleArriving,
} from "../../vm/arriving.ts";
import { hasSpaceToResume } from "../../vm/guest-errors.ts";
import { findRunning } from "../../vm/in-use.ts";
import { mountRepository, type MountedRepository } from "./mount.ts";
import { repositoryOfEnvironment, type Repository } from "./restic.ts";

/** qemu's jobs offer events, but to one connection only; and a repository that comes back offers none. */
const TICK_MS = 1000;
const LONGEST_MS = 16_000;
/**
 * restic waits for minutes for a network that is away, while the guest waits, and may reset its disk. So long without any
 * progress of qemu or of restic, the repository counts as away.
 */
const STALL_MS = 15_000;
const CONNECT_MS = 10_000;
const LOCK_MS = 60_000;
const REASON_LENGTH = 500;

/** A file in its directory: the starter makes it once qemu reads what this process serves. */
export const HANDED_OVER = "handed-over";

/**
 * @param directory a temporary directory of the starter, whose lock this process has inherited
 * @param starter its pid: it may be dead by now
 */
export async function keepRepository(directory: string, hostdir: string, starter: string): Promise<void> {
  const repository = repositoryOfEnvironment();
  const mounted = await mountRepository(repository, directory);
  const interrupted = Promise.withResolvers<void>();
  interruption.addEventListener("abort", () => interrupted.resolve());
  const serving = new Serving(repository, directory, mounted);
  try {
    for (;;) {
      // A starter that was killed makes none. It ends this process if there is no qemu.
      if (lstatOf(join(directory, HANDED_OVER)) || readParent() !== starter) {
        const work = resolveWork(hostdir);
        if (work.state !== "present" || (await findRunning(work)) === undefined) return;
        // Another command has another process serve them.
        if (realPath(join(work.dir, WORK.repositoryLink)) !== directory) return;
        if (!work.mark.arriving || (await serving.serve(hostdir, work))) return;
      }
      await Promise.race([Bun.sleep(serving.delayMs), interrupted.promise]);
      throwIfInterrupted();
    }
  } finally {
    await serving.end();
    removeTree(directory);
  }
}

/** proc(5); Bun reads `process.ppid` once. */
const readParent = (): string | undefined =>
  /^PPid:\t(\d+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];

class Serving {
  #mounted: MountedRepository | undefined;
  /** What qemu has open is of an earlier mount. */
  #stale = false;
  /** Until the next time: longer while errors come again. */
  delayMs = TICK_MS;
  #progress = { seen: "", since: 0 };

  constructor(
    private readonly repository: Repository,
    private readonly directory: string,
    mounted: MountedRepository,
  ) {
    this.#follow(mounted);
  }

  #follow(mounted: MountedRepository): void {
    this.#mounted = mounted;
    void mounted.exited.then(() => {
      if (this.#mounted === mounted) this.#mounted = undefined;
      this.#stale = true;
    });
  }

  async end(): Promise<void> {
    await this.#mounted?.end();
  }

  /** @returns whether all is copied, and recorded. Errors are for the next time. */
  async serve(hostdir: string, work: Workdir): Promise<boolean> {
    try {
      if (listArriving(work).length === 0) return await settle(hostdir);
      if (!this.#mounted) this.#follow(await mountRepository(this.repository, this.directory));
      const qmp = await QmpClient.connect(join(work.dir, WORK.qmp), CONNECT_MS);
      try {
        const again = this.#stale;
        if (again) await reconnectDisks(qmp, work);
        this.#stale = this.#mounted === undefined;
        const space = hasSpaceToResume(work.dir);
        const resumed = space && ((await continueCopying(qmp, work)) || (await resumeAfterError(qmp)));
        // Data that is missing or damaged in the repository ends restic each time.
        this.delayMs = resumed || again ? Math.min(2 * this.delayMs, LONGEST_MS) : TICK_MS;
        await this.#watchProgress(await readCopied(qmp));
        remove(join(this.directory, REASON));
      } finally {
        qmp.close();
      }
    } catch (error) {
      const reason = reasonOf(error).slice(0, REASON_LENGTH);
      // Its log is of one line a reason, however long this lasts.
      if (reason !== readSmall(join(this.directory, REASON))) log.warn(reason);
      replaceVolatile(join(this.directory, REASON), reason);
      this.delayMs = Math.min(2 * this.delayMs, LONGEST_MS);
    }
    return false;
  }

  async #watchProgress(bytes: number | undefined): Promise<void> {
    const now = performance.now();
    const seen = `${bytes} ${this.#mounted && countReadBytes(this.#mounted.pid)}`;
    if (bytes === undefined || seen !== this.#progress.seen) this.#progress = { seen, since: now };
    else if (now - this.#progress.since > STALL_MS) {
      log.warn("the repository does not answer");
      this.#progress.since = now;
      await this.#mounted?.end();
    }
  }
}

/** Bytes that a process has read, from files and sockets (proc(5)): a part of an image may take long on a slow line. */
function countReadBytes(pid: number): string | undefined {
  try {
    return /^rchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1];
  } catch {
    return undefined;
  }
}

/** Resumes a guest that qemu has paused for a failed read or write; not one that a command has paused. */
async function resumeAfterError(qmp: QmpClient): Promise<boolean> {
  const { status } = await qmp.execute("query-status");
  if (status !== "io-error") return false;
  await qmp.execute("cont");
  return true;
}

/** Under the VM's lock; a command that has it does the same. */
async function settle(hostdir: string): Promise<boolean> {
  using _lock = await lockVm(hostdir, "record that the disks are complete", LOCK_MS);
  const work = resolveWork(hostdir);
  if (work.state !== "present" || !work.mark.arriving) return true;
  return (await settleArriving(work)).mark.arriving === undefined;
}
