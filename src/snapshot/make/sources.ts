import { statSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { lstatOf } from "../../lib/read-file.ts";
import { moveAside } from "../../lib/shell.ts";
import { allocatedBytes } from "../../store/files.ts";
import { workingPath } from "../../store/layout.ts";
import { requireRegularDisk, ownDisks } from "../../store/own-disks.ts";
import { findSmallFileProblem, SMALL_FILES } from "../../store/small-files.ts";
import { requireOwnDisk } from "../../vm/backing-file.ts";
import type { Workdir } from "../../store/workdir.ts";
import type { Source } from "../../live/disk-source.ts";

/**
 * Disks, NVRAM, the cloud-init volume, the state of the TPM.
 * @throws 74 for a disk that refers to a file other than its recorded backing file, or a small file of the wrong kind or size
 */
export function listSources(work: Workdir): Source[] {
  const { dir } = work;
  const disks = ownDisks(dir).map((name) => {
    const path = join(dir, name);
    requireRegularDisk(path);
    return { name, path, disk: true, base: requireOwnDisk(work, path) };
  });
  const others = [...SMALL_FILES.keys()]
    .map((name) => ({ name, path: workingPath(dir, name), disk: false, base: undefined }))
    .filter(({ path }) => lstatOf(path));
  for (const { name, path } of others) {
    const problem = findSmallFileProblem(name, path);
    if (problem !== undefined)
      throw new VmError("io", `cannot back up ${path}: ${problem}`, { hint: moveAside(path) });
  }
  return [...disks, ...others];
}

/** Bytes that a disk and its backing files occupy. */
export function heldBytes({ path, base }: Pick<Source, "path" | "base">): number {
  let sum = allocatedBytes(statSync(path));
  for (let image = base; image; image = image.base)
    if (!image.blockDevice) sum += allocatedBytes(statSync(image.path));
  return sum;
}
