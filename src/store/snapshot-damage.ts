import { sha256 } from "../lib/crypto.ts";
import { closeSync, fstatSync, readSync } from "node:fs";
import { join } from "node:path";
import { checkGuestEnv, type CheckedGuestEnv } from "../config/check-guest-env.ts";
import { reasonOf } from "../lib/errors.ts";
import { lstatOf, openForReading, readSmallBytes } from "../lib/read-file.ts";
import { parseImage } from "../machine/parse.ts";
import { findHeaderDamage, readOwnHeader } from "../qemu/image-header.ts";
import { listDirectory } from "./files.ts";
import { isDiskName, isStateName, SNAPSHOT, STATE, WORK } from "./layout.ts";
import type { StoredFile } from "./manifest.ts";
import { SMALL_FILES } from "./small-files.ts";
import { isNewer } from "./snapshot-info.ts";
import type { Snapshot } from "./snapshots.ts";
import { loadSums } from "./checksums.ts";
import { followChain } from "./snapshot-chain.ts";

/** Finds a snapshot of the same VM by its name. */
export type FindSnapshot = (name: string) => Snapshot | undefined;

interface DamageOptions {
  /** Results for other snapshots; this one's is added. */
  known?: Map<string, string | undefined>;
  /** False: the state of a running guest is not needed. */
  ram?: boolean;
}

/** gzip's magic, and a header and trailer of the smallest size (RFC 1952). */
const GZIP_MAGIC = 0x1f8b;
const GZIP_LEAST = 18;

/**
 * Quick check of a snapshot and its parents: small files by checksum, disk images by presence, length and header. The
 * contents of images are not read, which is what `verify` does.
 * @returns why it cannot be restored, or undefined
 */
export function findDamage(
  snapshot: Snapshot,
  find: FindSnapshot,
  { known = new Map(), ram = true }: DamageOptions = {},
): string | undefined {
  const { parents, problem } = followChain(snapshot, find);
  const own = ownDamage(snapshot, known, ram);
  if (own !== undefined || problem !== undefined) return own ?? problem;
  for (const parent of parents) {
    const damage = ownDamage(parent, known, ram);
    if (damage !== undefined) return `its parent ${parent.name} is damaged: ${damage}`;
  }
  return undefined;
}

/** The same for a snapshot without its parents. */
export const findOwnDamage = (snapshot: Snapshot): string | undefined => ownDamage(snapshot, new Map(), true);

/**
 * The same for the backing files of a working disk: disk images only. A snapshot of a newer version passes.
 */
export function findSnapshotDiskDamage(snapshot: Snapshot, find: FindSnapshot): string | undefined {
  const { parents, problem } = followChain(snapshot, find);
  for (const item of [snapshot, ...parents]) {
    const damage = damageOfDisks(item);
    if (damage !== undefined)
      return item === snapshot ? damage : `its parent ${item.name} is damaged: ${damage}`;
  }
  return problem;
}

function damageOfDisks(snapshot: Snapshot): string | undefined {
  const { dir, manifest, problem } = snapshot;
  if (problem) return isNewer(snapshot) ? undefined : problem.message;
  try {
    if (!manifest) return undefined;
    const sums = loadSums(dir)?.sums;
    if (!sums) return `${SNAPSHOT.sums} is missing`;
    const disks = manifest.files.filter(({ name }) => isDiskName(name));
    const unnamed = [SNAPSHOT.manifest, ...disks.map(({ file }) => file)].find((file) => !sums.has(file));
    if (unnamed !== undefined) return `${SNAPSHOT.sums} does not name ${unnamed}`;
    if (!hasSum(dir, SNAPSHOT.manifest, sums.get(SNAPSHOT.manifest)!))
      return `${SNAPSHOT.manifest}: its checksum is wrong`;
    return disks.map((file) => damageOfFile(snapshot, file)).find((damage) => damage !== undefined);
  } catch (error) {
    return reasonOf(error);
  }
}

/** Does a small file match SHA256SUMS? @throws as `readSmallBytes` */
const hasSum = (dir: string, name: string, sum: string): boolean =>
  sha256(readSmallBytes(join(dir, name)) ?? "") === sum;

function ownDamage(
  snapshot: Snapshot,
  known: Map<string, string | undefined>,
  ram: boolean,
): string | undefined {
  const { name, problem } = snapshot;
  if (known.has(name)) return known.get(name);
  let damage: string | undefined;
  try {
    damage = problem ? problem.message : findContentDamage(snapshot, ram);
  } catch (error) {
    damage = reasonOf(error);
  }
  known.set(name, damage);
  return damage;
}

function findContentDamage(snapshot: Snapshot, ram: boolean): string | undefined {
  const { dir, manifest } = snapshot;
  const files: (Pick<StoredFile, "file"> & Partial<StoredFile>)[] =
    manifest?.files.filter(({ name }) => ram || !isStateName(name)) ??
    listStoredGz(dir).map((file) => ({ file }));
  return (
    damageOfSums(snapshot, ram) ??
    damageOfSettings(
      snapshot,
      files.map(({ file, name }) => name ?? file.slice(0, -SNAPSHOT.gz.length)),
    ) ??
    files.map((file) => damageOfFile(snapshot, file)).find((damage) => damage !== undefined)
  );
}

/** Files of disks and NVRAM, if no manifest names them. */
const listStoredGz = (dir: string): string[] =>
  listDirectory(dir).filter((file) => {
    const name = file.slice(0, -SNAPSHOT.gz.length);
    return file.endsWith(SNAPSHOT.gz) && (isDiskName(name) || SMALL_FILES.has(name));
  });

/** Small files that a restore reads. */
const isRestored = (name: string): boolean => name === WORK.guestEnv || name.endsWith(".defaults");

/** SHA256SUMS lists all required files, all listed files exist, and small ones match. */
function damageOfSums({ dir, manifest }: Snapshot, ram: boolean): string | undefined {
  const parsed = loadSums(dir);
  if (!parsed) return manifest && `${SNAPSHOT.sums} is missing`;
  const { sums, problems } = parsed;
  if (problems.length > 0) return problems[0];
  const present = listDirectory(dir);
  const needed = [
    ...(manifest ? [SNAPSHOT.manifest, ...manifest.files.map(({ file }) => file)] : listStoredGz(dir)),
    ...present.filter(isRestored),
  ];
  const unnamed = needed.find((name) => !sums.has(name));
  if (unnamed !== undefined) return `${SNAPSHOT.sums} does not name ${unnamed}`;
  const unused = new Set(
    manifest?.files.flatMap(({ name, file }) => (isStateName(name) && !ram ? [file] : [])),
  );
  for (const [name, sum] of sums) {
    if (unused.has(name)) continue;
    const stats = lstatOf(join(dir, name));
    if (!stats) return `${name} is missing`;
    // Disk images are checked by length and header.
    const stored = manifest ? manifest.files.some(({ file }) => file === name) : name.endsWith(SNAPSHOT.gz);
    if (!stored && !hasSum(dir, name, sum)) return `${name}: its checksum is wrong`;
  }
  return undefined;
}

/** Checks the settings in a snapshot; undefined if it has none. @throws as `readSmallBytes` */
export function readSnapshotSettings({ dir }: Snapshot): CheckedGuestEnv | undefined {
  const file = join(dir, WORK.guestEnv);
  const bytes = readSmallBytes(file);
  if (bytes === undefined) return undefined;
  return checkGuestEnv(bytes.toString(), file, (name) => process.env[name] ?? "");
}

/**
 * Settings that match their checksum are intact, even if this version rejects them: the disks can be restored. Without a
 * checksum they must be valid.
 */
function damageOfSettings(snapshot: Snapshot, stored: readonly string[]): string | undefined {
  const { dir, manifest } = snapshot;
  const settings = readSnapshotSettings(snapshot);
  if (!settings) return manifest ? undefined : `${WORK.guestEnv} is missing`;
  const [first] = settings.complaints;
  const vouched = loadSums(dir)?.sums.has(WORK.guestEnv);
  if (first && settings.state !== "readable" && (!vouched || settings.state === "empty"))
    return `${WORK.guestEnv}:${first.line}: ${first.message}`;
  const missing = [settings.images]
    .flat()
    .flatMap((item) => parseImage(item) ?? [])
    .find(({ path }) => isDiskName(path) && !stored.includes(path));
  return missing && `the disk ${missing.path} is missing`;
}

function damageOfFile(
  { dir, manifest }: Snapshot,
  { file, bytes, storedBytes, virtualBytes }: Pick<StoredFile, "file"> & Partial<StoredFile>,
): string | undefined {
  const path = join(dir, file);
  const stats = lstatOf(path);
  if (!stats) return `${file} is missing`;
  if (!stats.isFile()) return `${file} is no regular file`;
  if (storedBytes !== undefined && stats.size !== storedBytes)
    return `${file} has ${stats.size} bytes instead of ${storedBytes}`;
  if (file.endsWith(SNAPSHOT.gz)) return damageOfGz(path, file, bytes);
  // What the guest has in its RAM may look like an image.
  if (file === STATE.ram) return undefined;
  const header = readOwnHeader(path);
  const damage = findHeaderDamage(header);
  if (damage !== undefined) return `${file}: ${damage}`;
  const { qcow2, backingName: backing } = header;
  if (virtualBytes !== undefined && qcow2?.virtualBytes !== virtualBytes)
    return `${file} holds a disk of ${qcow2?.virtualBytes} bytes instead of ${virtualBytes}`;
  if (backing === undefined || backing === `../${manifest?.parent}/${file}`) return undefined;
  return `${file} refers to the backing file ${backing}`;
}

function damageOfGz(path: string, file: string, bytes: number | undefined): string | undefined {
  const fd = openForReading(path);
  try {
    const { size } = fstatSync(fd);
    const head = Buffer.alloc(2);
    const tail = Buffer.alloc(4);
    readSync(fd, head, 0, 2, 0);
    if (size < GZIP_LEAST || head.readUInt16BE() !== GZIP_MAGIC) return `${file} is no gzip file`;
    readSync(fd, tail, 0, 4, size - 4);
    // gzip stores it modulo 4 GiB.
    if (bytes !== undefined && tail.readUInt32LE() !== bytes % 2 ** 32)
      return `${file} does not decompress to ${bytes} bytes`;
    return undefined;
  } finally {
    closeSync(fd);
  }
}
