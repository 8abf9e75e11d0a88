import { statSync } from "node:fs";
import { join } from "node:path";
import type { ReadImage } from "../../machine/types.ts";
import { readVirtualBytes } from "../../qemu/image-header.ts";
import { convertImage, measureImage } from "../../qemu/img.ts";
import { remove } from "../../store/remove.ts";
import { allocatedBytes, requireSpace } from "../../store/files.ts";
import { compressFiles, type CopyJob } from "../../store/gz.ts";
import { PARTIAL, SNAPSHOT } from "../../store/layout.ts";
import type { StoredFile } from "../../store/manifest.ts";
import type { Context } from "../../vm/context.ts";
import type { Vm } from "../../vm/find.ts";
import { listSnapshots } from "../../store/snapshots.ts";
import { isUnattended } from "../../process/unattended.ts";
import { heldBytes } from "./sources.ts";
import { type Source } from "../../live/disk-source.ts";

/** Usual compression ratio of a system disk, for the estimate. */
const USUAL_RATIO = 0.3;

/**
 * @param live uncompressed copies of the disks are made in `backups`, too
 * @throws 73 if `backups` lacks space for the compressed files
 */
export async function requireSpaceForGz(
  vm: Vm,
  sources: readonly Source[],
  backups: string,
  live: boolean,
): Promise<void> {
  let copies = 0;
  let needed = 0;
  for (const source of sources)
    // Of an overlay its own clusters are copied first, then merged with its backing file.
    if (live) copies += heldBytes(source) + (source.base ? allocatedBytes(statSync(source.path)) : 0);
    else if (source.base)
      copies += (await measureImage({ format: "qcow2", path: source.path }, source.base)).neededBytes;
    else needed += allocatedBytes(statSync(source.path));
  needed += copies;
  const before = listSnapshots(vm.hostdir).findLast(({ manifest }) => manifest?.format === "gz");
  const last = before?.manifest?.files ?? [];
  const held = last.reduce((sum, file) => sum + file.allocatedBytes, 0);
  const stored = last.reduce((sum, file) => sum + file.storedBytes, 0);
  const ratio = held > 0 ? stored / held : USUAL_RATIO;
  requireSpace(backups, copies + Math.ceil(needed * Math.min(ratio, 1)), "create the snapshot", "snapshots");
}

/** Compresses files with pigz. @returns their manifest entries */
export async function storeGz(
  context: Context,
  vm: Vm,
  listed: readonly Source[],
  staged: string,
  snapshot: string,
  rate = 0,
): Promise<StoredFile[]> {
  const sources = await mergeBases(context, listed, staged);
  const jobs: CopyJob[] = sources.map(({ name, path }) => ({
    name,
    from: path,
    to: join(staged, name + SNAPSHOT.gz),
    bytes: statSync(path).size,
  }));
  const total = jobs.reduce((sum, job) => sum + job.bytes, 0);
  const meter = context.meter(`backup ${snapshot}`, total);
  try {
    const options = { level: vm.settings.PIGZ_LEVEL, rate, low: isUnattended() };
    await compressFiles(jobs, options, (done) => meter.update(done));
  } finally {
    meter.finish();
  }
  const files = jobs.map((job, index) => describeFile(job, sources[index]!));
  for (const { path, base } of sources) if (base) remove(path);
  return files;
}

/** Merges each overlay with its backing files: a gz snapshot has no parent. */
async function mergeBases(context: Context, sources: readonly Source[], staged: string): Promise<Source[]> {
  const merged: Source[] = [];
  for (const source of sources) {
    const { name, path, base } = source;
    const copy = join(staged, `${PARTIAL}${name}`);
    if (base) {
      const { size } = statSync(path);
      const meter = context.meter(`merge ${name}`, size);
      const image: ReadImage = { format: "qcow2", path };
      await convertImage(image, copy, (part) => meter.update(part * size), base).finally(() =>
        meter.finish(),
      );
    }
    merged.push(base ? { ...source, path: copy } : source);
  }
  return merged;
}

function describeFile(job: CopyJob, { name, disk }: Source): StoredFile {
  const stats = statSync(job.from);
  const virtualBytes = disk ? readVirtualBytes(job.from) : undefined;
  return {
    name,
    file: name + SNAPSHOT.gz,
    bytes: stats.size,
    allocatedBytes: allocatedBytes(stats),
    storedBytes: statSync(job.to).size,
    ...(virtualBytes === undefined ? {} : { virtualBytes }),
  };
}
