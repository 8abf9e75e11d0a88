import { closeSync, openSync, realpathSync, statSync, symlinkSync } from "node:fs";
import { stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { readTail, realPath } from "../lib/read-file.ts";
import { shellQuote } from "../lib/shell.ts";
import { plain, quoteLine } from "../lib/text.ts";
import { exec, requireProgram, start, type Child } from "../process/exec.ts";
import { listDeadMounts, listFuseMounts, OWN_SUBTYPE, unmountFuse } from "../process/mounts.ts";
import { requireFuse } from "../snapshot/remote/mount.ts";
import { listDirectory } from "../store/files.ts";
import { WORK } from "../store/layout.ts";
import { MOUNTED } from "../store/temporary.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";
import { detached, openScratch, openSnapshotDisks, type Scratch } from "./disks.ts";
import type { MountRequest } from "./request.ts";
import { createResult, runFilesJob } from "./run.ts";
import { filterLinks, relaySftp } from "./sftp-relay.ts";
import { listingOf, withSnapshot, type SnapshotPlace } from "./snapshot.ts";

const WHAT = "cannot mount files of a snapshot";
/** Where the rescue has the files that it serves. */
const SERVED = "/run/files/0";
/** There is no event for a mount in /proc/self/mountinfo that Bun could wait for. */
const POLL_MS = 100;
/** Of what sshfs says. */
const MESSAGE_BYTES = 4096;
/** What a guest has made is neither run nor believed here. */
const OPTIONS = `passive,ro,nosuid,nodev,noexec,subtype=${OWN_SUBTYPE}`;
/** An sshfs that has this option refuses to read any symlink with `..` without it; the relay looks at each. */
const ALLOW_DOTS = "no_contain_symlinks";

/**
 * Mounts files of a snapshot, until they are unmounted or the program is interrupted: a rescue serves them by SFTP, and sshfs
 * shows them. No symlink refers to a file outside. The snapshot is being read meanwhile, as `get` does; the VM is not locked.
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
  removeDeadMount(path);
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

/** What a killed sshfs has left there. */
function removeDeadMount(path: string): void {
  const parent = realPath(dirname(path));
  const [dead] = parent === undefined ? [] : listDeadMounts(join(parent, basename(path)));
  if (dead === undefined) return;
  if (!unmountFuse(dead))
    throw new VmError("cannotCreate", `${WHAT}: ${plain(dead)} has a mount whose sshfs was killed`, {
      hint: `unmount it: fusermount3 -u -z ${shellQuote(dead)}`,
    });
  log.info(`unmounted ${plain(dead)}, where an earlier mount was killed`);
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
  symlinkSync(point, join(dir, MOUNTED));
  const mounted = Promise.withResolvers<void>();
  let sshfs: Child | undefined;
  let failure: unknown;
  const cannot = `cannot mount files of ${snapshot.name}`;
  const job = runFilesJob(context, detached(vm, work), work, {
    operation: "serve",
    paths: [path],
    disks,
    result,
    cannot,
    stopping: "unmounting",
    listing: listingOf(place),
    keyFile: place.keyFile,
    onStarted: () =>
      void startSshfs(dir, point, snapshot.name, path).then(
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
  await ended.catch((error: unknown) => {
    throw error instanceof VmError && error.code === "io"
      ? new VmError("io", `the mount of ${snapshot.name} ended: ${error.message.replace(`${cannot}: `, "")}`)
      : error;
  });
  const signal = sshfs && (await sshfs.done).signal;
  if (signal) throw new VmError("io", `the mount of ${snapshot.name} ended: sshfs was killed by ${signal}`);
}

const LOG = "sshfs.log";

/** Its connection is relayed to a socket of qemu; it ends when that is closed, and the other way round. */
async function startSshfs(dir: string, point: string, name: string, path: string): Promise<Child> {
  const help = await exec(["sshfs", "-h"], { anyStatus: true, stdout: "pipe", stderr: "pipe" });
  const allow = help.stdout.includes(ALLOW_DOTS) ? `,${ALLOW_DOTS}` : "";
  // An absolute symlink of a filesystem is looked up in it.
  const filter = filterLinks(SERVED, path.replace(/^[^/]*:/, ""));
  const { fd } = await relaySftp(join(dir, WORK.files), filter);
  const output = openSync(join(dir, LOG), "w", 0o600);
  try {
    return start(["sshfs", "-f", "-o", `${OPTIONS}${allow},fsname=${name}`, `vm:${SERVED}`, point], {
      stdin: fd,
      stdout: fd,
      stderr: output,
      whenOrphaned: "TERM",
      keepOnInterrupt: true,
    });
  } finally {
    closeSync(fd);
    closeSync(output);
  }
}
