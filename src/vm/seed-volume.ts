/** The volume with data for cloud-init in the guest (machine/cloud-config.ts). */
import { mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { installHint, PACKAGES } from "../lib/packages.ts";
import { MAX_SMALL_BYTES, withFile, type ReadAt } from "../lib/read-file.ts";
import { SEED_LABEL } from "../machine/cloud-config.ts";
import { exec, findProgram } from "../process/exec.ts";
import { syncFile, writeNew } from "../store/files.ts";
import { PARTIAL, WORK } from "../store/layout.ts";
import { remove } from "../store/remove.ts";

/** Names of its files. */
const SEED_FILES = ["user-data", "meta-data", "network-config"] as const;

/** Files of cloud-init's NoCloud volume, by name. */
export type Seed = Record<"user-data" | "meta-data", string | Buffer> & {
  "network-config"?: string | Buffer;
};

/** Any program with the options of mkisofs. */
export function requireIsoProgram(): string[] {
  if (findProgram("xorriso")) return ["xorriso", "-no_rc", "-as", "mkisofs"];
  const other = ["genisoimage", "mkisofs"].find((name) => findProgram(name));
  if (other) return [other];
  throw new VmError(
    "unavailable",
    "cannot create cloud-init's volume: xorriso, genisoimage and mkisofs are not installed",
    { hint: installHint(PACKAGES.xorriso) },
  );
}

/** Creates the volume in `directory`, atomically. */
export async function writeSeed(directory: string, seed: Seed): Promise<void> {
  const scratch = join(directory, `${PARTIAL}seed`);
  mkdirSync(scratch, { mode: 0o700 });
  const names = Object.keys(seed) as (keyof Seed)[];
  for (const name of names) writeNew(join(scratch, name), seed[name]!);
  // Names without a directory: some characters in paths are special to mkisofs.
  const options = ["-quiet", "-V", SEED_LABEL, "-J", "-r", "-o", WORK.seed];
  const what = "cannot create cloud-init's volume";
  await exec([...requireIsoProgram(), ...options, ...names], { cwd: scratch, what });
  renameSync(join(scratch, WORK.seed), join(directory, WORK.seed));
  remove(scratch);
  await syncFile(join(directory, WORK.seed));
}

const SECTOR = 2048;
/** ECMA-119, 8.1: volume descriptors, and the type of a supplementary one (Joliet). */
const DESCRIPTORS = { first: 16, last: 32, supplementary: 2, end: 255 };
const MAX_DIRECTORY_BYTES = 1 << 16;

/** A file or directory of an ISO 9660 volume (ECMA-119, 9.1). */
interface IsoEntry {
  name: string;
  start: number;
  bytes: number;
}

/** @param record a directory record @param at its start */
const parseRecord = (record: Buffer, at: number): IsoEntry => {
  const name = Buffer.from(record.subarray(at + 33, at + 33 + record.readUInt8(at + 32)));
  return {
    // UCS-2, big-endian.
    name: (name.length % 2 === 0 ? name.swap16() : name).toString("utf16le").replace(/;1$/, ""),
    start: record.readUInt32LE(at + 2) * SECTOR,
    bytes: record.readUInt32LE(at + 10),
  };
};

/** Entries of the root directory, by their Joliet names. */
function readRoot(read: ReadAt): IsoEntry[] {
  for (let sector = DESCRIPTORS.first; sector < DESCRIPTORS.last; sector++) {
    const descriptor = read(sector * SECTOR, SECTOR);
    const type = descriptor[0];
    if (type === undefined || type === DESCRIPTORS.end || descriptor.toString("latin1", 1, 6) !== "CD001")
      break;
    if (type !== DESCRIPTORS.supplementary) continue;
    const root = parseRecord(descriptor, 156);
    const directory = read(root.start, Math.min(root.bytes, MAX_DIRECTORY_BYTES));
    const entries: IsoEntry[] = [];
    for (let at = 0; at + 34 <= directory.length;) {
      const length = directory[at]!;
      // Records do not cross the end of a sector.
      if (length < 34 || at + length > directory.length) at = (Math.floor(at / SECTOR) + 1) * SECTOR;
      else {
        entries.push(parseRecord(directory, at));
        at += length;
      }
    }
    return entries;
  }
  return [];
}

/** Reads the files of a volume that this program has written. @throws 74 for any other */
export function readSeed(path: string): Seed {
  return withFile(path, (read) => {
    const entries = readRoot(read);
    const files: Partial<Record<keyof Seed, Buffer>> = {};
    for (const name of SEED_FILES) {
      const found = entries.find((entry) => entry.name === name);
      if (!found) continue;
      const content = found.bytes <= MAX_SMALL_BYTES ? read(found.start, found.bytes) : undefined;
      if (content?.length === found.bytes) files[name] = content;
    }
    const { "user-data": userData, "meta-data": metaData } = files;
    if (userData && metaData) return { ...files, "user-data": userData, "meta-data": metaData };
    throw new VmError("io", `cannot read cloud-init's volume ${path}: it was not made by this program`, {
      hint: "leave it as it is: --keep-guest",
    });
  });
}
