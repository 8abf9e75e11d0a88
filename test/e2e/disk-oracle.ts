/**
 * Contents of disks, read without the program: qemu-img and gunzip unpack them, and the checksum of the raw disk counts.
 * A qcow2 file can change while its contents do not.
 */
import { createHash } from "node:crypto";
import { closeSync, existsSync, lstatSync, openSync, readFileSync, readSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

const digest = (data: Uint8Array | string): string =>
  createHash("sha256").update(data).digest("hex").slice(0, 16);

/** Directory of raw disks: in memory if possible. */
const scratch = existsSync("/dev/shm") ? "/dev/shm" : "/tmp";
let turn = 0;

/** Unpacks a disk temporarily. @throws with the message of qemu-img or gunzip */
async function withRaw<T>(image: string, use: (raw: string) => T): Promise<T> {
  const raw = join(scratch, `vm-oracle-${process.pid}-${turn++}`);
  const unpacked = `${raw}.qcow2`;
  try {
    if (image.endsWith(".gz")) await Bun.write(unpacked, Bun.gunzipSync(readFileSync(image)));
    const source = image.endsWith(".gz") ? unpacked : image;
    const child = Bun.spawn(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", source, raw], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
      timeout: 60_000,
    });
    const stderr = await new Response(child.stderr).text();
    if ((await child.exited) !== 0) throw new Error(stderr.trim());
    return use(raw);
  } finally {
    rmSync(raw, { force: true });
    rmSync(unpacked, { force: true });
  }
}

/** The backing file of an image, by its header (docs/interop/qcow2.txt); undefined if it has none. */
function backingFileOf(image: string): string | undefined {
  const fd = openSync(image, "r");
  const header = Buffer.alloc(20);
  const length = readSync(fd, header, 0, 20, 0);
  const offset = Number(header.readBigUInt64BE(8));
  const size = header.readUInt32BE(16);
  const name = Buffer.alloc(Math.min(size, 1023));
  if (length === 20 && offset > 0) readSync(fd, name, 0, name.length, offset);
  closeSync(fd);
  if (length < 20 || offset === 0) return undefined;
  return resolve(dirname(image), name.toString());
}

/** A checksum of an image and all its backing files; undefined if a name is not a plain path. */
function chainSum(image: string): string | undefined {
  const sums: string[] = [];
  for (let file: string | undefined = image; file !== undefined;) {
    if (!existsSync(file) || sums.length > 50) return undefined;
    sums.push(digest(readFileSync(file)));
    file = file.endsWith(".gz") ? undefined : backingFileOf(file);
  }
  return sums.join(" ");
}

const seen = new Map<string, string>();

/** The checksum of a disk's contents. @throws if it cannot be unpacked */
export async function contentOfDisk(image: string): Promise<string> {
  const key = chainSum(image);
  const known = key === undefined ? undefined : seen.get(key);
  if (known !== undefined) return known;
  const sum = await withRaw(image, (raw) => digest(readFileSync(raw)));
  if (key !== undefined) seen.set(key, sum);
  return sum;
}

/**
 * Settings without comments and without lines that the program may add at any time (a VM's identity, the formats
 * of its images).
 */
function settingsSum(path: string): string {
  const lines = readFileSync(path, "utf8").split("\n");
  const ignored = /^(?:#|UUID=|VM_FORMAT=|\s*$)/;
  const text = lines.join("\n").replaceAll(/^(?:IMAGE_FORMATS|UUID_FORMER)=(?:\([^)]*\)|.*)$/gm, "");
  return digest(
    text
      .split("\n")
      .filter((line) => !ignored.test(line))
      .join("\n"),
  );
}

/**
 * What a snapshot or a working directory holds: its disks, its NVRAM and its settings.
 * @returns "none" without disks; a damaged disk counts as `disk-0: MESSAGE` of qemu-img
 */
export async function contentOfDirectory(dir: string, names: readonly string[]): Promise<string> {
  const parts: string[] = [];
  for (const name of names.toSorted()) {
    const disk = /^(disk-\d+)\.(?:img|img\.gz|qcow2)$/.exec(name)?.[1];
    const path = join(dir, name);
    if (disk !== undefined)
      parts.push(`${disk} ${await contentOfDisk(path).catch((error: Error) => error.message)}`);
    else if (name === "efivars.bin") parts.push(`efivars ${digest(readFileSync(path))}`);
    else if (name === "efivars.bin.gz") parts.push(`efivars ${digest(Bun.gunzipSync(readFileSync(path)))}`);
  }
  if (parts.length === 0) return "none";
  const env = join(dir, "guest.env");
  const there = lstatSync(env, { throwIfNoEntry: false });
  return [...parts, `env ${there?.isFile() ? settingsSum(env) : "missing"}`].join(", ");
}

/** Offsets of the records of the guest `busy` (test/guests/busy.asm), and of a lineage's pattern. */
const RECORDS_END = 12 << 20;

export interface Busy {
  /** Consecutive records, from sector 1 on. */
  count: number;
  /** The byte that fills the 64 KiB at RECORDS_END. */
  lineage: number;
  /** Unexpected data. */
  wrong: string[];
}

function parseBusy(raw: string): Busy {
  const bytes = readFileSync(raw);
  const isRecord = (n: number): boolean =>
    bytes.readUInt32LE(n * 512) === n && bytes.toString("latin1", n * 512 + 4, n * 512 + 8) === "RECO";
  let count = 0;
  while (isRecord(count + 1)) count++;
  const wrong: string[] = [];
  const behind = bytes.subarray((count + 1) * 512, RECORDS_END).findIndex((byte) => byte !== 0);
  if (behind >= 0) wrong.push(`something stands ${behind} bytes behind record ${count}`);
  const pattern = bytes.subarray(RECORDS_END, RECORDS_END + 65_536);
  const lineage = pattern[0]!;
  if (pattern.some((byte) => byte !== lineage)) wrong.push("its pattern is mixed");
  return { count, lineage, wrong };
}

const busy = new Map<string, Busy>();

/** Reads a disk that the guest `busy` writes to. */
async function readBusy(image: string): Promise<Busy> {
  const key = chainSum(image);
  const found = (key === undefined ? undefined : busy.get(key)) ?? (await withRaw(image, parseBusy));
  if (key !== undefined) busy.set(key, found);
  return found;
}

/** Are all disks of a snapshot or a working directory of one lineage and one point in time? */
export async function judgeBusy(dir: string, disks: readonly string[]): Promise<Busy> {
  const found: Busy[] = [];
  for (const disk of disks.toSorted())
    found.push(
      await readBusy(join(dir, disk)).catch((error: Error) => ({
        count: 0,
        lineage: 0,
        wrong: [error.message],
      })),
    );
  const [first, second] = found;
  if (!first || !second)
    return { count: 0, lineage: 0, wrong: [`its disks are ${disks.join(", ") || "none"}`] };
  const wrong = [...first.wrong, ...second.wrong];
  if (first.lineage !== second.lineage) wrong.push("its disks are of two lineages");
  // The first disk is written first.
  const ahead = first.count - second.count;
  if (ahead !== 0 && ahead !== 1)
    wrong.push(`its disks are of two moments: ${first.count} and ${second.count}`);
  return { ...first, count: second.count, wrong };
}
