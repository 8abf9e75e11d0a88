import { closeSync, openSync, realpathSync, statSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { readTail } from "../lib/read-file.ts";
import { shellQuote } from "../lib/shell.ts";
import { plain, quoteLine } from "../lib/text.ts";
import { requireProgram, start, type Child } from "../process/exec.ts";
import { connectBlocking } from "../process/descriptors.ts";
import { listFuseMounts, unmountFuse } from "../process/mounts.ts";
import { withSocketAddress } from "../process/unix-socket.ts";
import { requireFuse } from "../snapshot/remote/mount.ts";
import { listDirectory } from "../store/files.ts";
import { LAST, WORK } from "../store/layout.ts";
import { newMark } from "../store/mark-types.ts";
import { findSnapshot } from "../store/snapshots.ts";
import { makeTemporary } from "../store/temporary.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";
import { withVm } from "../vm/open.ts";
import { detached, openSnapshotDisks } from "./disks.ts";
import type { MountRequest } from "./request.ts";
import { createResult, runFilesJob } from "./run.ts";
import type { SnapshotPlace } from "./snapshot.ts";

const WHAT = "cannot mount files of a snapshot";
/** Where the rescue has the files that it serves. */
const SERVED = "/run/files/0";
/** There is no event for a mount in /proc/self/mountinfo that Bun could wait for. */
const POLL_MS = 100;
/** Of what sshfs says. */
const MESSAGE_BYTES = 4096;
/** What a guest has made is neither run nor believed here. */
const OPTIONS = "passive,ro,nosuid,nodev,noexec,subtype=vm";

/**
 * Mounts files of a snapshot, until they are unmounted or the program is interrupted: a rescue serves them by SFTP, and sshfs
 * shows them. The VM is locked only until qemu has the images open: they may be removed then.
 */
export async function mountFiles(context: Context, request: MountRequest): Promise<void> {
  requireProgram("sshfs");
  requireFuse(WHAT);
  const point = requireMountPoint(resolve(context.cwd, request.directory));
  await using held = new AsyncDisposableStack();
  const { ended } = await withVm(
    context,
    "mount files of a snapshot",
    async (vm) => {
      const place = await openPlace(context, vm, request, held);
      const temporary = held.use(makeTemporary(vm.hostdir, context.tmpdir));
      return await serveFiles(context, vm, place, request, { dir: temporary.dir, point });
    },
    { lenient: true },
  );
  await ended;
}

/** @throws 66, 73 unless it is an empty directory on which nothing is mounted */
function requireMountPoint(path: string): string {
  const hint = `name an empty directory: mkdir ${shellQuote(path)}`;
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new VmError("noInput", `${WHAT}: no such directory: ${plain(path)}`, { hint });
  const point = realpathSync(path);
  if (listFuseMounts(point).includes(point) || listDirectory(point).length > 0)
    throw new VmError("cannotCreate", `${WHAT}: ${plain(path)} is not empty`, {
      hint: "name an empty directory",
    });
  return point;
}

async function openPlace(
  context: Context,
  { hostdir }: Vm,
  { name, remote }: MountRequest,
  held: AsyncDisposableStack,
): Promise<SnapshotPlace> {
  if (!remote) return { snapshot: findSnapshot(hostdir, name), hostdir };
  const { openInRepository } = await import("./remote.ts");
  const files = held.use(await openInRepository(context, hostdir, name === LAST ? undefined : name));
  return { snapshot: findSnapshot(files.hostdir, files.name), hostdir: files.hostdir };
}

/** Resolves when they are mounted; `ended` resolves at their end. */
async function serveFiles(
  context: Context,
  vm: Vm,
  { snapshot, hostdir }: SnapshotPlace,
  { path }: MountRequest,
  { dir, point }: { dir: string; point: string },
): Promise<{ ended: Promise<void> }> {
  const work: Workdir = { state: "present", dir, inplace: false, mark: newMark() };
  const stage = { dir, commit: () => dir, abort: () => {} };
  const disks = await openSnapshotDisks(context, hostdir, snapshot, stage);
  const result = join(dir, "result.raw");
  createResult(result, 1 << 20);
  const mounted = Promise.withResolvers<void>();
  let sshfs: Child | undefined;
  let failure: unknown;
  const job = runFilesJob(context, detached(vm, work), work, {
    operation: "serve",
    paths: [path],
    disks,
    result,
    cannot: `cannot mount files of ${snapshot.name}`,
    hint: `list its filesystems: ${commandLine("snapshots", "ls", snapshot.name)}`,
    onStarted: () =>
      void startSshfs(dir, point, snapshot.name).then(
        (child) => (sshfs = child),
        // The rescue exits without a client.
        (error: unknown) => (failure = error),
      ),
  });
  const watch = setInterval(() => {
    if (!listFuseMounts(point).includes(point)) return;
    clearInterval(watch);
    // sshfs mounts before the rescue has answered. Without an answer the job's error says why.
    void stat(point).then(
      () => mounted.resolve(),
      () => {},
    );
  }, POLL_MS);
  const ended = job.finally(async () => {
    clearInterval(watch);
    if (listFuseMounts(point).includes(point)) unmountFuse(point);
    await sshfs?.done;
  });
  const never = ended.then(() => {
    const said = readTail(join(dir, LOG), MESSAGE_BYTES)?.trim().split("\n").at(-1);
    throw failure ?? new VmError("io", `${WHAT}: ${quoteLine(said || "sshfs exited")}`);
  });
  await Promise.race([mounted.promise, never]);
  clearInterval(watch);
  never.catch(() => {});
  log.success(
    `${snapshot.name} is mounted read-only on ${plain(point)}; to end it: fusermount3 -u ${shellQuote(point)}`,
  );
  return { ended };
}

const LOG = "sshfs.log";

/** Its connection is a socket of qemu; it ends when that is closed, and the other way round. */
async function startSshfs(dir: string, point: string, name: string): Promise<Child> {
  const connection = await withSocketAddress(join(dir, WORK.files), async (address) =>
    connectBlocking(address, 0),
  );
  const output = openSync(join(dir, LOG), "w", 0o600);
  try {
    const options = `${OPTIONS},fsname=${name}`;
    return start(["sshfs", "-f", "-o", options, `vm:${SERVED}`, point], {
      stdin: connection,
      stdout: connection,
      stderr: output,
      whenOrphaned: "TERM",
      keepOnInterrupt: true,
    });
  } finally {
    closeSync(connection);
    closeSync(output);
  }
}
