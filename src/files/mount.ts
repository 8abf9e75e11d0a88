import { closeSync, openSync, realpathSync, statSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { readTail } from "../lib/read-file.ts";
import { shellQuote } from "../lib/shell.ts";
import { plain, quoteLine } from "../lib/text.ts";
import { exec, requireProgram, start, type Child } from "../process/exec.ts";
import { connectBlocking } from "../process/descriptors.ts";
import { listFuseMounts, unmountFuse } from "../process/mounts.ts";
import { withSocketAddress } from "../process/unix-socket.ts";
import { requireFuse } from "../snapshot/remote/mount.ts";
import { listDirectory } from "../store/files.ts";
import { WORK } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";
import { detached, openScratch, openSnapshotDisks, type Scratch } from "./disks.ts";
import type { MountRequest } from "./request.ts";
import { createResult, runFilesJob } from "./run.ts";
import { listingOf, withSnapshot, type SnapshotPlace } from "./snapshot.ts";

const WHAT = "cannot mount files of a snapshot";
/** Where the rescue has the files that it serves. */
const SERVED = "/run/files/0";
/** There is no event for a mount in /proc/self/mountinfo that Bun could wait for. */
const POLL_MS = 100;
/** Of what sshfs says. */
const MESSAGE_BYTES = 4096;
/** What a guest has made is neither run nor believed here. */
const OPTIONS = "passive,ro,nosuid,nodev,noexec,subtype=vm";
/** libfuse's module makes absolute symlinks relative to the mount point; sshfs's `transform_symlinks` needs them below SERVED. */
const SYMLINKS = "modules=subdir,subdir=/,rellinks";
/** Allows symlinks with `..`, which an sshfs that has this option refuses to read without it. */
const ALLOW_DOTS = "no_contain_symlinks";

/**
 * Mounts files of a snapshot, until they are unmounted or the program is interrupted: a rescue serves them by SFTP, and sshfs
 * shows them. The snapshot is being read meanwhile, as `get` does; the VM is not locked.
 */
export async function mountFiles(context: Context, request: MountRequest): Promise<void> {
  requireProgram("sshfs");
  requireFuse(WHAT);
  const point = requireMountPoint(resolve(context.cwd, request.directory));
  await withSnapshot(context, request, "mount files of a snapshot", async (vm, place) => {
    using scratch = openScratch(context, vm);
    await serveFiles(context, vm, place, request, { scratch, point });
  });
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

/** Until their end. */
async function serveFiles(
  context: Context,
  vm: Vm,
  place: SnapshotPlace,
  { path }: MountRequest,
  { scratch, point }: { scratch: Scratch; point: string },
): Promise<void> {
  const { snapshot, hostdir } = place;
  const { dir, work } = scratch;
  const disks = await openSnapshotDisks(context, hostdir, snapshot, scratch);
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
    listing: listingOf(place),
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
  await ended;
  const signal = sshfs && (await sshfs.done).signal;
  if (signal) throw new VmError("io", `the mount of ${snapshot.name} ended: sshfs was killed by ${signal}`);
}

const LOG = "sshfs.log";

/** Its connection is a socket of qemu; it ends when that is closed, and the other way round. */
async function startSshfs(dir: string, point: string, name: string): Promise<Child> {
  const help = await exec(["sshfs", "-h"], { anyStatus: true, stdout: "pipe", stderr: "pipe" });
  const symlinks = help.stdout.includes(ALLOW_DOTS) ? `${SYMLINKS},${ALLOW_DOTS}` : SYMLINKS;
  const connection = await withSocketAddress(join(dir, WORK.files), async (address) =>
    connectBlocking(address, 0),
  );
  const output = openSync(join(dir, LOG), "w", 0o600);
  try {
    const options = `${OPTIONS},${symlinks},fsname=${name}`;
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
