import { mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { formatSize } from "../../lib/size.ts";
import { formatDuration } from "../../lib/time.ts";
import { throwIfInterrupted } from "../../process/signals.ts";
import {
  afterCommit,
  fileError,
  lstatOf,
  remove,
  removeQuietly,
  swingLink,
  syncDirectory,
} from "../../store/files.ts";
import { HOST, LAST, PARTIAL } from "../../store/layout.ts";
import type { Manifest, SnapshotFormat } from "../../store/manifest.ts";
import { consistencyOf } from "../../store/mark.ts";
import type { Context } from "../context.ts";
import { refuseRunning } from "../in-use.ts";
import { requireWork, withVm, type Present, type Vm } from "../open.ts";
import { nextSnapshotName } from "../snapshots.ts";
import { describeSnapshotFiles, keepHostFiles } from "./describe.ts";
import { openOffline } from "./disk-source.ts";
import { requireRoomForGz, storeGz } from "./gz.ts";
import { storeImages } from "./images.ts";
import { listSources, type Source } from "./sources.ts";
import { isUnattended } from "../unattended.ts";

export interface BackupRequest {
  name?: string | undefined;
  description?: string | undefined;
  /** Absent: as SNAPSHOT_FORMAT says. */
  format?: SnapshotFormat | undefined;
  /** Everything, whatever it could build on. */
  full?: boolean | undefined;
  /** Bytes per second at which disks are read; absent: no limit. */
  rateLimit?: number | undefined;
  /** How long another command's change may still take. */
  lockWaitMs?: number | undefined;
}

/**
 * Makes a snapshot of the VM.
 * @returns its name
 * @throws 75 while it runs, 73 when the name is taken or there is no room
 */
export const backupVm = (context: Context, request: BackupRequest = {}): Promise<string> =>
  withVm(context, "back up", (vm) => makeSnapshot(context, vm, request), request.lockWaitMs);

async function makeSnapshot(context: Context, vm: Vm, request: BackupRequest): Promise<string> {
  const started = performance.now();
  const work = requireWork(vm, "back up");
  const name = request.name ?? nextSnapshotName(vm.hostdir);
  const backups = join(vm.hostdir, HOST.backups);
  if (lstatOf(join(backups, name)))
    throw new VmError("cannotCreate", `the snapshot ${name} exists already`, {
      hint: "choose another name, or none for the next free one",
    });
  await refuseRunning(work, "back up");
  const sources = listSources(work);
  warnAboutOthers(vm, sources);
  const staged = join(backups, `${PARTIAL}${name}`);
  let stored: Stored;
  try {
    mkdirSync(backups, { recursive: true, mode: 0o700 });
    mkdirSync(staged, { mode: 0o700 });
    const making: Making = { context, vm, work, sources, staged, name, request };
    const made = new Date();
    const format = request.format ?? vm.settings.SNAPSHOT_FORMAT;
    stored = await (format === "qcow2" ? storeQcow2(making) : storeAllGz(making));
    await describeSnapshotFiles(context, vm, work, staged, { made, text: request.description }, stored);
    throwIfInterrupted();
    syncDirectory(staged);
    renameSync(staged, join(backups, name));
  } catch (error) {
    removeQuietly(staged);
    throw fileError(`cannot make the snapshot ${name}`, error);
  }
  const finish = (): void => {
    syncDirectory(backups);
    swingLink(join(backups, LAST), name);
    syncDirectory(backups);
    keepHostFiles(context, vm, work);
  };
  afterCommit(`the snapshot ${name} is whole`, finish, `see that ${LAST} in ${backups} leads to it`);
  log.success(summarize(name, stored, (performance.now() - started) / 1000));
  return name;
}

/** A snapshot while it is made. */
interface Making {
  context: Context;
  vm: Vm;
  work: Present;
  sources: Source[];
  staged: string;
  name: string;
  request: BackupRequest;
}

type Stored = Pick<Manifest, "format" | "id" | "parent" | "consistency" | "files">;

async function storeAllGz({ context, vm, work, sources, staged, name }: Making): Promise<Stored> {
  await requireRoomForGz(vm, sources, staged);
  const files = await storeGz(context, vm, sources, staged, name);
  const consistency = consistencyOf(work.mark);
  if (consistency === "crash-consistent")
    log.warn("the guest did not power itself off last time: the snapshot is as after a power cut");
  return { format: "gz", consistency, files };
}

async function storeQcow2(making: Making): Promise<Stored> {
  const { context, vm, work, sources, staged, name, request } = making;
  const source = await openOffline(vm, work, sources, staged, isUnattended());
  let stored;
  try {
    const asked = { full: request.full === true, live: false, speed: request.rateLimit ?? 0 };
    stored = await storeImages({ context, vm, sources, staged, snapshot: name, ...asked }, source);
  } finally {
    await source.close();
    for (const file of ["blocks.sock", "blocks.log"]) remove(join(staged, file));
  }
  const { id, parent, moment } = stored;
  const small = sources.filter(({ disk }) => !disk);
  const files = [...stored.files, ...(await storeGz(context, vm, small, staged, name))];
  if (moment.consistency === "crash-consistent")
    log.warn("the guest did not power itself off last time: the snapshot is as after a power cut");
  return {
    format: "qcow2",
    id,
    ...(parent === undefined ? {} : { parent }),
    consistency: moment.consistency,
    files,
  };
}

function warnAboutOthers({ settings }: Vm, sources: readonly Source[]): void {
  const others = settings.IMAGES.filter((image) => !/^disk-\d+\.img$/.test(image.path));
  if (others.length > 0)
    log.warn(
      `not in the snapshot, being no files of this VM: ${others.map((image) => image.path).join(", ")}`,
    );
  if (!sources.some(({ disk }) => disk))
    log.warn("this VM has no disks of its own: the snapshot holds its settings only");
}

/** `snapshot S1: 4.0 GiB in 604 MiB, 7.1 s`; `snapshot S2: changes to S1, 17 MiB, 0.1 s` */
function summarize(name: string, { parent, files }: Stored, seconds: number): string {
  const held = files.reduce((sum, file) => sum + file.bytes, 0);
  const size = formatSize(files.reduce((sum, file) => sum + file.storedBytes, 0));
  const what = parent === undefined ? `${formatSize(held)} in ${size}` : `changes to ${parent}, ${size}`;
  return `snapshot ${name}: ${what}, ${formatDuration(seconds)}`;
}
