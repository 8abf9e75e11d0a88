import { join } from "node:path";
import { commandLine } from "../../lib/command-line.ts";
import { briefOf, hasErrno, VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { counted } from "../../lib/text.ts";
import { findImageDamage } from "../../qemu/img.ts";
import { findHeaderDamage, readOwnHeader } from "../../qemu/image-header.ts";
import { findVariablesDamage } from "../../qemu/uefi-variables.ts";
import { lstatOf } from "../../lib/read-file.ts";
import { requireRegularDisk, ownDisks } from "../../store/own-disks.ts";
import { WORK } from "../../store/layout.ts";
import type { SnapshotFormat } from "../../machine/types.ts";
import type { Workdir } from "../../store/workdir.ts";
import { damagedDisk, MISSING, NOT_MADE, type CopyPurpose } from "../../store/damaged-disk.ts";
import type { Source } from "../../live/disk-source.ts";

/**
 * Checks that the working disks exist and are qcow2 files with an intact header, and that the UEFI variables are complete.
 * @param named disks in IMAGES: `disk-0.img`
 * @throws 74 naming the first damaged file
 */
export function requireDisks(
  { dir }: Workdir,
  named: readonly string[],
  purpose: CopyPurpose = "back up",
): void {
  for (const name of new Set([...named, ...ownDisks(dir)])) {
    const path = join(dir, name);
    requireRegularDisk(path);
    let damage: string | undefined;
    try {
      damage = findHeaderDamage(readOwnHeader(path));
    } catch (error) {
      damage = hasErrno(error, "ENOENT") ? MISSING : briefOf(error);
    }
    if (damage !== undefined) throw damagedDisk(path, damage, purpose);
  }
  const variables = join(dir, WORK.efivars);
  const cut = lstatOf(variables) && findVariablesDamage(variables);
  if (cut !== undefined)
    throw new VmError("io", `cannot ${purpose} ${variables}: ${cut}`, {
      hint: `${NOT_MADE[purpose]}; restore an intact one`,
    });
}

/**
 * Checks the metadata of the working disks with `qemu-img check`, in parallel. Disks of a running VM change meanwhile: its
 * qemu reports whether they are corrupt.
 * @throws 74 naming the first damaged disk
 */
export async function requireIntactDisks(
  sources: readonly Source[],
  { live, low, purpose = "back up" }: { live: boolean; low: boolean; purpose?: CopyPurpose },
): Promise<void> {
  if (live) return;
  const disks = sources.filter(({ disk }) => disk);
  const found = await Promise.all(
    disks.map(({ path, base }) => findImageDamage({ format: "qcow2", path, base }, low)),
  );
  for (const [index, damage] of found.entries())
    if (damage !== undefined) throw damagedDisk(disks[index]!.path, damage, purpose);
}

/** Only a copy of the whole file contains internal snapshots. */
export function warnAboutInternalSnapshots(
  sources: readonly Source[],
  format: SnapshotFormat,
  live: boolean,
): void {
  for (const { name, path, disk, base } of sources) {
    if (!disk || (format === "gz" && !live && !base)) continue;
    const count = readOwnHeader(path).qcow2?.internalSnapshots ?? 0;
    if (count > 0)
      log.warn(
        `${name} has ${counted(count, "internal snapshot")} (qemu-img snapshot -l), which this backup does not include; ${
          base
            ? "they are only in the working disk"
            : `to include them, while the VM is off: ${commandLine("backup", "--format=gz")}`
        }`,
      );
  }
}
