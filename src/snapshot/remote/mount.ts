/**
 * The repository read in place: `restic mount` (FUSE) in a directory of this program, which no other user can enter. What
 * it shows is untrusted: see `requireValidRemote`.
 */
import { accessSync, closeSync, constants, mkdirSync, openSync, readFileSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { beginStep } from "../../lib/activity.ts";
import { installHint, PACKAGES } from "../../lib/packages.ts";
import { reasonOf, VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { formatTimestamp } from "../../lib/time.ts";
import { within } from "../../lib/within.ts";
import { start, type Child, type Finished } from "../../process/exec.ts";
import { readTail } from "../../lib/read-file.ts";
import { findFusermount, listFuseMounts, unmountFuse } from "../../process/mounts.ts";
import { interruption } from "../../process/signals.ts";
import { watchDirectory } from "../../process/watch-directory.ts";
import { HOST } from "../../store/layout.ts";
import { makeTemporary, type Temporary } from "../../store/temporary.ts";
import type { Context } from "../../vm/context.ts";
import { findHostdir } from "../../vm/find.ts";
import { chooseRemote } from "./choose.ts";
import { requireValidRemote } from "./fetch.ts";
import { listRemote, readLocalVm } from "./list.ts";
import { openRepository, type Repository } from "./restic.ts";
import { TAG, type RemoteSnapshot } from "./tags.ts";

const FUSE_DEVICE = "/dev/fuse";
/** Besides events of restic's log: when it says that it serves, it is mounted. */
const POLL_MS = 100;
/** How long restic may take to open the repository and read its index. */
const START_MS = 600_000;
/** How long the small files of a snapshot may take. */
const READ_MS = 45_000;
const WATCH_MS = 500;
const LOG_BYTES = 64 << 10;
/** How long it may take to exit once it is unmounted. */
const EXIT_MS = 5000;

const WHAT = "cannot read the repository in place";

/** @throws 69 with the reason `no-fuse` if this host cannot mount: a snapshot can be fetched instead */
export function requireFuse(what = WHAT): void {
  const noFuse = (why: string, hint: string | undefined): VmError =>
    new VmError("unavailable", `${what}: ${why}`, { reason: "no-fuse", hint });
  if (findFusermount() === undefined)
    throw noFuse("fusermount3 is not installed (not found on PATH)", installHint(PACKAGES.fuse));
  try {
    accessSync(FUSE_DEVICE, constants.R_OK | constants.W_OK);
  } catch (error) {
    throw noFuse(`${FUSE_DEVICE}: ${reasonOf(error)}`, "load its kernel module as root: modprobe fuse");
  }
}

/** A mounted repository. */
export interface MountedRepository {
  /** Directory that shows the snapshots, each in one directory: restic's id in full. */
  readonly point: string;
  /** restic's process, which must run while it is read. */
  readonly pid: number;
  /** Settles when restic has exited. */
  readonly exited: Promise<unknown>;
  /** Unmounts it, and waits for restic. */
  end(): Promise<void>;
  /** Why reads failed, if data of the repository is missing or damaged. */
  problem(): VmError | undefined;
}

/**
 * Mounts the repository, and waits until it is there.
 * @param directory of this program, mode 0700; gets the mount point `repository` and `restic.log`
 * @throws 66 without a repository, 69 without FUSE, 74 if restic fails, 75 if another restic has locked it
 */
export async function mountRepository(repository: Repository, directory: string): Promise<MountedRepository> {
  requireFuse();
  const point = join(directory, "repository");
  // Of a restic that was killed.
  listFuseMounts(point).forEach(unmountFuse);
  mkdirSync(point, { mode: 0o700, recursive: true });
  using _step = beginStep(() => "open the repository");
  const mounted = await repository.pastStaleLocks(
    () => tryMount(repository, point),
    (result) => (isFailure(result) ? result.stderr : ""),
  );
  if (isFailure(mounted)) throw repository.failure(WHAT, mounted);
  return mounted;
}

const isFailure = (result: Finished | MountedRepository): result is Finished => "argv" in result;

async function tryMount(repository: Repository, point: string): Promise<Finished | MountedRepository> {
  const directory = dirname(point);
  const logPath = join(directory, "restic.log");
  const { O_CREAT, O_NOFOLLOW, O_TRUNC, O_WRONLY } = constants;
  const output = openSync(logPath, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600);
  let child: Child;
  try {
    child = repository.start(["mount", "--tag", TAG.program, "--path-template", "%I", point], {
      stdout: output,
      stderr: output,
      whenOrphaned: "TERM",
      // It ends after its users.
      keepOnInterrupt: true,
    });
  } finally {
    closeSync(output);
  }
  const mounted = Promise.withResolvers<undefined>();
  const check = (): void => {
    if (listFuseMounts(point).length > 0) mounted.resolve(undefined);
  };
  const end = (): Promise<void> => unmount(child, point);
  let result: Finished | undefined;
  try {
    using _watch = watchDirectory(directory, { everyMs: POLL_MS }, check);
    const limit = within(
      Promise.race([mounted.promise, child.done]),
      START_MS,
      () => new VmError("io", WHAT),
    );
    result = await Promise.race([limit, untilInterrupted()]);
  } catch (error) {
    await end();
    throw error;
  }
  if (result) return { ...result, argv: ["restic"], stderr: readFileSync(logPath, "utf8") };
  const problem = (): VmError | undefined => repository.damage(WHAT, readTail(logPath, LOG_BYTES) ?? "");
  // Readers would wait for a quarter of an hour, in which restic tries again.
  const timer = setInterval(() => {
    if (problem()) child.kill("SIGKILL");
  }, WATCH_MS);
  void child.done.finally(() => clearInterval(timer));
  return { point, pid: child.pid, exited: child.done, end, problem };
}

/** Rejects when this program is interrupted. */
function untilInterrupted(): Promise<never> {
  if (interruption.aborted) return Promise.reject(interruption.reason);
  const { promise, reject } = Promise.withResolvers<never>();
  interruption.addEventListener("abort", () => reject(interruption.reason), { once: true });
  return promise;
}

/** restic exits when its filesystem is unmounted. */
async function unmount(child: Child, point: string): Promise<void> {
  listFuseMounts(point).forEach(unmountFuse);
  await within(child.done, EXIT_MS, () => new Error("it still runs")).catch(() => {
    child.kill("SIGKILL");
    return child.done;
  });
  // It may have been mounted only now.
  listFuseMounts(point).forEach(unmountFuse);
}

/**
 * Has another process read what this one will read next: it could not be interrupted there.
 * @param root directory of a snapshot and its parents
 * @throws 74 naming the repository, if data is missing or damaged, or does not come
 */
export async function requireReadable(
  repository: Repository,
  mounted: Pick<MountedRepository, "problem">,
  root: string,
): Promise<void> {
  const argv = ["find", root, "-type", "f", "-size", "-64k", "-exec", "cat", "{}", "+"];
  const child = start(argv, { stdout: "ignore", stderr: "ignore" });
  try {
    const read = within(child.done, READ_MS, () => repository.damage(WHAT, NO_ANSWER)!);
    const { status } = await Promise.race([read, untilInterrupted()]);
    const problem = mounted.problem();
    if (problem) throw problem;
    if (status !== 0) throw repository.damage(WHAT, UNREADABLE);
  } finally {
    child.kill("SIGKILL");
  }
}

const NO_ANSWER = "restic: no data arrives: not found in time";
const UNREADABLE = "restic: files of the snapshot cannot be read: not found";

/** A snapshot of the repository, read in place. */
export interface RemoteFiles extends AsyncDisposable {
  /** A directory whose `backups` are the snapshot and its parents, as those of a VM's directory. */
  readonly hostdir: string;
  readonly snapshot: RemoteSnapshot;
  problem(): VmError | undefined;
}

/**
 * Opens a snapshot of the repository without fetching it.
 * @param name name or restic's id; absent: the newest
 * @throws as `mountRepository`, and 66 if the repository does not have it, 74 if it is invalid
 */
export async function openRemote(context: Context, name: string | undefined): Promise<RemoteFiles> {
  requireFuse();
  const repository = await openRepository(context);
  const snapshot = chooseRemote(await listRemote(repository), readLocalVm(context), name);
  const temporary: Temporary = makeTemporary(findHostdir(context), context.tmpdir);
  let mounted: MountedRepository | undefined;
  const dispose = async (): Promise<void> => {
    await mounted?.end();
    temporary[Symbol.dispose]();
  };
  try {
    mounted = await mountRepository(repository, temporary.dir);
    const root = join(mounted.point, snapshot.id);
    await requireReadable(repository, mounted, root);
    requireValidRemote(root, snapshot.name);
    symlinkSync(root, join(temporary.dir, HOST.backups));
  } catch (error) {
    await dispose();
    throw error;
  }
  log.info(`reading ${snapshot.name}, made ${formatTimestamp(snapshot.made)}, in the repository`);
  const { problem } = mounted;
  return { hostdir: temporary.dir, snapshot, problem, [Symbol.asyncDispose]: dispose };
}
