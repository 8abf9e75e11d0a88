import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { commandLine } from "../../lib/command-line.ts";
import { formatSumLine } from "../../lib/sha256sums.ts";
import { newSnapshotId } from "../../lib/uuid.ts";
import { log } from "../../lib/log.ts";
import { throwIfInterrupted } from "../../process/signals.ts";
import { isUnattended } from "../../process/unattended.ts";
import { readVirtualBytes } from "../../qemu/image-header.ts";
import { convertImage, measureImage } from "../../qemu/img.ts";
import { allocatedBytes, listDirectory, requireSpace } from "../../store/files.ts";
import { imageName, isDiskName, SNAPSHOT } from "../../store/layout.ts";
import type { StoredFile } from "../../store/manifest.ts";
import { consistencyOf } from "../../store/mark-types.ts";
import { remove } from "../../store/remove.ts";
import type { Workdir } from "../../store/workdir.ts";
import type { Source } from "../../live/disk-source.ts";
import { requireIntactBackingFiles } from "../../vm/backing-snapshot.ts";
import type { Context } from "../../vm/context.ts";
import { requireWork, type Vm } from "../../vm/find.ts";
import { refuseRunning, refuseSuspended } from "../../vm/in-use.ts";
import { checkTpmForBackup } from "../../vm/tpm-state.ts";
import { requireDisks, requireIntactDisks } from "../make/check-disks.ts";
import { describeSnapshotFiles } from "../make/describe.ts";
import { storeGz } from "../make/gz.ts";
import { listSources } from "../make/sources.ts";
import { memberName } from "./index-file.ts";
import type { ExportPart } from "./parts.ts";

const WHAT = "export";

const sumLine = (name: string, sum: string): string => formatSumLine({ name, sum });

/** The working disks of a VM that is off, checked; its own lock is held. @throws 75 while it runs or is suspended */
export async function openWorking(vm: Vm): Promise<{ work: Workdir; sources: Source[] }> {
  const work = requireWork(vm, WHAT);
  const instead = `\nor export a snapshot: ${commandLine("backup")} && ${commandLine("export", "LAST", "-o", "FILE")}`;
  await refuseRunning(work, WHAT, instead);
  refuseSuspended(work, WHAT, instead);
  if (work.mark.arriving) await (await import("../../vm/arriving.ts")).refuseArriving(work, WHAT);
  const others = vm.settings.IMAGES.filter(({ path }) => !isDiskName(path));
  requireDisks(work, vm.settings.IMAGES.map(({ path }) => path).filter(isDiskName), WHAT);
  checkTpmForBackup(vm, work, false);
  const sources = listSources(work);
  await requireIntactDisks(sources, { live: false, low: isUnattended(), purpose: WHAT });
  const layered = sources.filter(({ base }) => base).map(({ path }) => path);
  await requireIntactBackingFiles(vm, layered, { low: isUnattended(), cannot: "cannot export" });
  if (others.length > 0)
    log.warn(`not exported, as they are not files of this VM: ${others.map(({ path }) => path).join(", ")}`);
  return { work, sources };
}

/**
 * The working files as those of a full qcow2 snapshot. A disk without a backing file is exported as it is; an overlay is
 * merged with its backing files in `staged` first.
 * @param name of the snapshot
 */
export async function stageWorking(
  context: Context,
  vm: Vm,
  { work, sources }: { work: Workdir; sources: readonly Source[] },
  staged: string,
  name: string,
): Promise<ExportPart[]> {
  mkdirSync(staged, { mode: 0o700 });
  const disks = sources.filter(({ disk }) => disk);
  let needed = 0;
  for (const { path, base } of disks)
    if (base) needed += (await measureImage({ format: "qcow2", path }, base)).neededBytes;
  requireSpace(staged, needed, "export the VM", "snapshots");
  const images: { path: string; file: StoredFile }[] = [];
  for (const source of disks) {
    const path = source.base ? await mergeBacking(context, source, staged) : source.path;
    images.push({ path, file: describeImage(source.name, path) });
  }
  const small = await storeGz(
    context,
    vm,
    sources.filter(({ disk }) => !disk),
    staged,
    name,
  );
  const stored = {
    format: "qcow2" as const,
    id: newSnapshotId(),
    consistency: consistencyOf(work.mark),
    files: [...images.map(({ file }) => file), ...small],
  };
  await describeSnapshotFiles(context, vm, work, staged, { made: new Date(), text: undefined }, stored);
  remove(join(staged, SNAPSHOT.sums));
  const paths = [
    ...images.map(({ path, file }) => ({ name: file.file, path })),
    ...listDirectory(staged)
      .filter((file) => !images.some(({ path }) => path === join(staged, file)))
      .map((file) => ({ name: file, path: join(staged, file) })),
  ];
  const parts: ExportPart[] = paths
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map((item) => ({ snapshot: 0, ...item, bytes: statSync(item.path).size }));
  return [
    ...parts,
    {
      snapshot: 0,
      name: SNAPSHOT.sums,
      bytes: parts.reduce((sum, part) => sum + sumLine(part.name, "0".repeat(64)).length, 0),
      content: (sums) =>
        Buffer.from(parts.map((part) => sumLine(part.name, sums.get(memberName(part))!)).join("")),
    },
  ];
}

async function mergeBacking(context: Context, { name, path, base }: Source, staged: string): Promise<string> {
  const to = join(staged, imageName(name));
  const size = readVirtualBytes(path) ?? 0;
  const meter = context.meter(`merge ${name}`, size);
  try {
    await convertImage({ format: "qcow2", path }, to, (part) => meter.update(part * size), base);
  } finally {
    meter.finish();
  }
  throwIfInterrupted();
  return to;
}

function describeImage(name: string, path: string): StoredFile {
  const stats = statSync(path);
  return {
    name,
    file: imageName(name),
    bytes: stats.size,
    allocatedBytes: allocatedBytes(stats),
    storedBytes: stats.size,
    virtualBytes: readVirtualBytes(path)!,
  };
}
