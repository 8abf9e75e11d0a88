/**
 * A VM that runs while its disks are still in the repository: each is an overlay on an image there, read in place, and qemu
 * copies the rest behind the guest (qapi/block-core.json, block-stream). What the guest writes is in the overlay from the
 * start.
 */
import { closeSync, constants, openSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beginStep } from "../../lib/activity.ts";
import { commandLine } from "../../lib/command-line.ts";
import { VmError } from "../../lib/errors.ts";
import { log, snapshotName } from "../../lib/log.ts";
import { lstatOf } from "../../lib/read-file.ts";
import { plain } from "../../lib/text.ts";
import { exec, start } from "../../process/exec.ts";
import { listFuseMounts } from "../../process/mounts.ts";
import { selfCommand } from "../../process/self.ts";
import { throwIfInterrupted } from "../../process/signals.ts";
import { UNRELIABLE } from "../../qemu/devices/image.ts";
import { readLastLines } from "../../qemu/last-lines.ts";
import { replaceSymlink } from "../../store/files.ts";
import { HOST, imageName, WORK } from "../../store/layout.ts";
import type { ArrivingRecord } from "../../store/mark-types.ts";
import { ownDisks } from "../../store/own-disks.ts";
import { backingNameOf, isArriving } from "../../store/snapshot-images.ts";
import type { Workdir } from "../../store/workdir.ts";
import { readSnapshotSettings } from "../../store/snapshot-damage.ts";
import { findSnapshot, type Snapshot } from "../../store/snapshots.ts";
import { parseImage } from "../../machine/parse.ts";
import { canWait, KEEPER_WORD } from "../../vm/arriving.ts";
import { makeTemporary } from "../../store/temporary.ts";
import type { Context } from "../../vm/context.ts";
import type { Vm } from "../../vm/find.ts";
import { withVm } from "../../vm/open.ts";
import { restoreSnapshot, type RestoreRequest } from "../restore.ts";
import { hasRam } from "../../store/manifest.ts";
import { chooseRemote } from "./choose.ts";
import { requireValidRemote, restoreFetched, warnOfOtherVm } from "./fetch.ts";
import { HANDED_OVER } from "./keeper.ts";
import { listRemote, readLocalVm } from "./list.ts";
import { requireFuse, requireReadable } from "./mount.ts";
import { openRepository, type Repository } from "./restic.ts";
import { shorten, type RemoteSnapshot } from "./tags.ts";

/** A repository that is mounted for a VM. */
export interface HeldRepository {
  /** Its `backups` are the snapshot and its parents. */
  readonly hostdir: string;
  /** Once qemu runs. */
  handOver(): void;
  /** Unmounts it, for a qemu that does not start. */
  end(): Promise<void>;
}

/** How long restic may take to open the repository and read its index. */
const READY_MS = 600_000;
const POLL_MS = 10;

/**
 * Starts the process that serves the disks, and waits until the repository is mounted.
 * @throws as `openRemote`, and 66 if it does not have the snapshot any more
 */
export async function holdRepository(
  context: Context,
  hostdir: string,
  wanted: ArrivingRecord,
  opened?: Repository,
): Promise<HeldRepository> {
  requireFuse();
  const repository = opened ?? (await openRepository(context));
  const { id } = opened ? wanted : findAgain(await listRemote(repository), wanted);
  const temporary = makeTemporary(hostdir, context.tmpdir);
  const point = join(temporary.dir, "repository");
  const logPath = join(temporary.dir, "keeper.log");
  const { O_CREAT, O_EXCL, O_WRONLY } = constants;
  const output = openSync(logPath, O_WRONLY | O_CREAT | O_EXCL, 0o600);
  using _step = beginStep(() => "open the repository");
  const child = start([...selfCommand(), KEEPER_WORD, temporary.dir, hostdir, String(process.pid)], {
    env: repository.env,
    stdout: output,
    stderr: output,
    furtherFds: [temporary.fd],
    whenOrphaned: "none",
    keepOnInterrupt: true,
  });
  closeSync(output);
  let over = false;
  const end = async (): Promise<void> => {
    if (over) return;
    over = true;
    child.kill("SIGTERM");
    await child.done;
    temporary[Symbol.dispose]();
  };
  try {
    let exited = false;
    void child.done.then(() => (exited = true));
    for (
      const deadline = Date.now() + READY_MS;
      listFuseMounts(point).length === 0;
      await Bun.sleep(POLL_MS)
    ) {
      throwIfInterrupted();
      if (!exited && Date.now() < deadline) continue;
      throw new VmError("io", `cannot read the repository in place:\n  ${readLastLines(logPath) ?? ""}`);
    }
    const root = join(point, id);
    await requireReadable(repository, { problem: () => undefined }, root);
    requireValidRemote(root, wanted.name);
    symlinkSync(root, join(temporary.dir, HOST.backups));
  } catch (error) {
    await end();
    throw error;
  }
  const handOver = (): void => {
    over = true;
    writeFileSync(join(temporary.dir, HANDED_OVER), "", { mode: 0o600 });
    child.release();
    temporary.release();
  };
  return { hostdir: temporary.dir, handOver, end };
}

/** `restic tag` gives a snapshot another id. @throws 66 if it is gone */
function findAgain(all: readonly RemoteSnapshot[], { name, id, snapshotId }: ArrivingRecord): RemoteSnapshot {
  const found =
    all.find((item) => item.id === id) ??
    all.find((item) => item.name === name && snapshotId !== undefined && item.snapshotId === snapshotId);
  if (found) return found;
  throw new VmError("noInput", `the repository does not have ${plain(name)} (${shorten(id)}) any more`, {
    hint: `a part of the disks is only there; to replace them with another snapshot: ${commandLine("restore")}`,
  });
}

/** The disks name their backing files through it. */
export const pointToRepository = ({ dir }: Workdir, { hostdir }: HeldRepository): void =>
  replaceSymlink(join(dir, WORK.repositoryLink), hostdir);

/**
 * Has the disks in WORKDIR find their backing files. qemu removes a disk's backing file from its header before its tables are
 * flushed: one that was complete in a qemu that was killed gets it again, which changes nothing in what was copied.
 */
export async function linkRepository(work: Workdir, repository: HeldRepository): Promise<void> {
  pointToRepository(work, repository);
  const { dir, mark } = work;
  const { hostdir } = repository;
  const { name } = mark.arriving!;
  for (const disk of ownDisks(dir)) {
    const path = join(dir, disk);
    if (isArriving(path) || !lstatOf(join(hostdir, HOST.backups, name, imageName(disk)))) continue;
    const backing = backingNameOf(name, disk, WORK.repositoryLink);
    await exec(["qemu-img", "rebase", "-u", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing, path], {
      what: `cannot set the backing file of ${path}`,
    });
  }
}

async function hasUnreliable(): Promise<boolean> {
  const { stdout } = await exec(["qemu-img", "--help"], { what: "cannot run qemu-img" });
  return stdout.split(/\s+/).includes(UNRELIABLE);
}

const usesHasty = (snapshot: Snapshot): boolean =>
  [readSnapshotSettings(snapshot)?.images ?? []]
    .flat()
    .some((item) => !canWait(parseImage(item)?.bus ?? "VIRT"));

/**
 * Replaces the working disks with overlays on a snapshot in the repository, for a run that copies the rest. One that cannot be
 * read in place is fetched and restored.
 * @returns the mounted repository, for the run; undefined if it was fetched
 * @throws as `restoreRemote`
 */
export async function restoreInPlace(
  context: Context,
  request: RestoreRequest,
): Promise<HeldRepository | undefined> {
  return withVm(
    context,
    "restore",
    async (vm: Vm) => {
      const repository = await openRepository(context);
      const here = readLocalVm(context);
      const wanted = chooseRemote(await listRemote(repository), here, request.name);
      warnOfOtherVm(here, wanted);
      const { snapshotId } = wanted;
      const arriving = { name: wanted.name, id: wanted.id, ...(snapshotId !== null && { snapshotId }) };
      const held = await holdRepository(context, vm.hostdir, arriving, repository);
      try {
        const snapshot = findSnapshot(held.hostdir, wanted.name);
        const { manifest } = snapshot;
        const ram = hasRam(manifest) && request.ram !== false;
        const why =
          (ram && "it has RAM") ||
          (manifest?.format !== "qcow2" && "it is compressed as a whole") ||
          (usesHasty(snapshot) && "it has disks on NVME or USB") ||
          (!(await hasUnreliable()) && `qemu was built without its driver ${UNRELIABLE}`);
        if (why) {
          log.info(`fetching ${snapshotName(wanted.name)} first: ${why}`);
          await held.end();
          await restoreFetched(context, vm, repository, wanted, request);
          return undefined;
        }
        await restoreSnapshot(context, vm, {
          ...request,
          name: wanted.name,
          uuid: wanted.uuid ?? undefined,
          ram: false,
          from: { hostdir: held.hostdir, arriving },
        });
        return held;
      } catch (error) {
        await held.end();
        throw error;
      }
    },
    { lenient: true },
  );
}
