import { statSync } from "node:fs";
import { join } from "node:path";
import type { ReadImage } from "../../machine/types.ts";
import { gentle } from "../../process/gentle.ts";
import { readVirtualBytes } from "../../qemu/image-header.ts";
import { convertImage, measureImage } from "../../qemu/img.ts";
import { remove } from "../../store/remove.ts";
import { allocatedBytes, requireRoom } from "../../store/files.ts";
import { compressFiles, type CopyJob } from "../../store/gz.ts";
import { PARTIAL, SNAPSHOT } from "../../store/layout.ts";
import type { StoredFile } from "../../store/manifest.ts";
import type { Context } from "../../vm/context.ts";
import type { Vm } from "../../vm/find.ts";
import { listSnapshots } from "../../store/snapshots.ts";
import { isUnattended } from "../../process/unattended.ts";
import { heldBytes } from "./sources.ts";
import { type Source } from "../../live/disk-source.ts";

/** What a gz snapshot of a system disk usually takes of it; nobody can know before. */
const USUAL_RATIO = 0.3;

/**
 * @param live whole copies of the disks are made there, too, which are compressed then
 * @throws 73 when there is no room in `backups` for the files, compressed
 */
export async function requireRoomForGz(
  vm: Vm,
  sources: readonly Source[],
  backups: string,
  live: boolean,
): Promise<void> {
  let copies = 0;
  let needed = 0;
  for (const source of sources)
    // An overlay's own part is copied first, and then merged with what is below.
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
  requireRoom(backups, copies + Math.ceil(needed * Math.min(ratio, 1)), "make the snapshot", "snapshots");
}

/** Compresses files with pigz. @returns what to note of them */
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
    const options = { level: vm.settings.PIGZ_LEVEL, rate, ...(isUnattended() ? { wrap: gentle } : {}) };
    await compressFiles(jobs, options, (done) => meter.update(done));
  } finally {
    meter.finish();
  }
  const files = jobs.map((job, index) => describeFile(job, sources[index]!));
  for (const { path, base } of sources) if (base) remove(path);
  return files;
}

/** Copies each disk that lies over an image, with what is in that: a gz snapshot stands alone. */
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
