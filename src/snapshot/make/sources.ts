import { statSync } from "node:fs";
import { join } from "node:path";
import { lstatOf } from "../../lib/read-file.ts";
import { allocatedBytes } from "../../store/files.ts";
import { TPM_STATE, WORK, workingPath } from "../../store/layout.ts";
import { requireRegularDisk, ownDisks } from "../../store/own-disks.ts";
import { requireOwnDisk } from "../../vm/backing-file.ts";
import type { Workdir } from "../../store/workdir.ts";
import type { Source } from "../../live/disk-source.ts";

/** Disks, NVRAM, the cloud-init volume, the state of the TPM. @throws 74 for a disk that refers to a file other than its recorded backing file */
export function listSources(work: Workdir): Source[] {
  const { dir } = work;
  const disks = ownDisks(dir).map((name) => {
    const path = join(dir, name);
    requireRegularDisk(path);
    return { name, path, disk: true, base: requireOwnDisk(work, path) };
  });
  const others = [WORK.efivars, WORK.seed, TPM_STATE]
    .map((name) => ({ name, path: workingPath(dir, name), disk: false, base: undefined }))
    .filter(({ path }) => lstatOf(path));
  return [...disks, ...others];
}

/** Bytes that a disk and its backing files occupy. */
export function heldBytes({ path, base }: Pick<Source, "path" | "base">): number {
  let sum = allocatedBytes(statSync(path));
  for (let image = base; image; image = image.base)
    if (!image.blockDevice) sum += allocatedBytes(statSync(image.path));
  return sum;
}
