/**
 * Single flipped bits and bytes, and truncated files, in snapshots and working directories. Changes of meaning must be
 * detected, by verify or by the next command; and nothing may make a VM permanently unusable.
 */
import {
  chmodSync,
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { join, relative } from "node:path";
import { seededRandom } from "./faults-lab.ts";
import { judgeDamage } from "./flip-oracle.ts";
import { BOTH } from "./kill-faults.ts";
import { soakVariantName, type SoakLab, type SoakSweep, type SoakVariant } from "./soak-lab.ts";

/** A file of the VM, by its purpose. */
export interface Victim {
  path: string;
  /** Its snapshot; else it is one of the VM's working files, or beside them. */
  snapshot?: string;
  file: string;
}

const isDisk = (file: string): boolean => /^disk-\d+\./.test(file);

function victims(lab: SoakLab): Victim[] {
  const found: Victim[] = [];
  const add = (dir: string, snapshot?: string): void => {
    for (const file of readdirSync(dir)) {
      const path = join(dir, file);
      const { size } = lstatSync(path);
      if (lstatSync(path).isFile() && size > 0)
        found.push({ path, file, ...(snapshot === undefined ? {} : { snapshot }) });
    }
  };
  for (const name of lab.names()) add(lab.box.path("backups", name), name);
  add(lab.box.host);
  const work = lab.workDir();
  if (work !== undefined && work !== lab.box.host) add(work);
  return found;
}

/** Flips one bit, or changes one byte. @returns a description */
function flip(path: string, random: () => number, inHeader: boolean): string {
  const { size, mode } = lstatSync(path);
  const at = Math.floor(random() * Math.min(size, inHeader ? 640 : size));
  const mask = random() < 0.7 ? 1 << Math.floor(random() * 8) : 1 + Math.floor(random() * 255);
  chmodSync(path, 0o600);
  const fd = openSync(path, "r+");
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, at);
  byte[0]! ^= mask;
  writeSync(fd, byte, 0, 1, at);
  closeSync(fd);
  chmodSync(path, mode & 0o777);
  return `byte ${at} of ${size} ^ ${mask}`;
}

function cut(path: string, random: () => number): string {
  const { size, mode } = lstatSync(path);
  const lengths = [0, 1, size >> 1, size - 1, Math.floor(random() * size)];
  const left = lengths[Math.floor(random() * lengths.length)]!;
  chmodSync(path, 0o600);
  truncateSync(path, left);
  chmodSync(path, mode & 0o777);
  return `cut to ${left} of ${size}`;
}

/** Small files are chosen as often as disks, which have almost all bytes. */
const KINDS: readonly { share: number; is: (victim: Victim) => boolean }[] = [
  { share: 0.35, is: ({ snapshot, file }) => snapshot !== undefined && !isDisk(file) },
  { share: 0.2, is: ({ snapshot, file }) => snapshot !== undefined && isDisk(file) },
  { share: 0.3, is: ({ snapshot, file }) => snapshot === undefined && !isDisk(file) },
  { share: 0.15, is: ({ snapshot, file }) => snapshot === undefined && isDisk(file) },
];

function choose(all: readonly Victim[], random: () => number): Victim {
  let share = random();
  const kind = KINDS.find((one) => (share -= one.share) < 0) ?? KINDS[0]!;
  const some = all.filter(kind.is).toSorted((a, b) => (a.path < b.path ? -1 : 1));
  return some[Math.floor(random() * some.length)]!;
}

/**
 * Damages one file at a time. To repeat a point: `--only=flips:VARIANT:NUMBER` with the same seed and the same numbers.
 */
export async function sweepFlips(
  { seed, point, labs, wanted }: SoakSweep,
  { flips, cuts }: { flips: number; cuts: number },
): Promise<void> {
  const variants: readonly SoakVariant[] = [...BOTH, { inplace: false, uefi: true }];
  // Working directories with NVRAM are a tenth; not worth a lab in a sample.
  const isLong = flips >= 100;
  const variantOf = (turn: number): SoakVariant => variants[isLong && turn % 10 === 9 ? 2 : turn % 2]!;
  const damage = async (variant: SoakVariant): Promise<void> => {
    const title = `flips:${soakVariantName(variant)}`;
    for (let turn = 0; turn < flips + cuts; turn++) {
      if (variantOf(turn) !== variant || !wanted(`${title}:${turn}`)) continue;
      // A point does not depend on earlier ones.
      const random = seededRandom(seed * 10_000 + turn);
      const lab = await labs.get(variant);
      await lab.load("whole");
      const victim = choose(victims(lab), random);
      // Truncations are spread among the flips, so that a small number includes both.
      const isCut =
        Math.floor(((turn + 1) * cuts) / (flips + cuts)) > Math.floor((turn * cuts) / (flips + cuts));
      const what = isCut
        ? cut(victim.path, random)
        : flip(victim.path, random, isDisk(victim.file) && random() < 0.5);
      const wrong = await judgeDamage(lab, victim, turn);
      const place = relative(lab.box.top, victim.path).replace(/^tmp\/[^/]+/, "WORKDIR");
      point(
        `${title}:${turn}`,
        wrong.map((text) => `${place}, ${what}: ${text}`),
      );
    }
  };
  // Only one command uses a lab at a time.
  await Promise.all(variants.map(damage));
}
