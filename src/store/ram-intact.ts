/**
 * RAM of a snapshot that machines map: it is not copied, and reading all of it takes longer than the guest takes to resume. It
 * is compared with its checksum once, and again after each change of the file: a write changes its ctime (inode(7)), which no
 * program can set. Noted in the cache directory.
 */
import { closeSync, mkdirSync, renameSync, statSync, writeFileSync, type BigIntStats } from "node:fs";
import { basename, join } from "node:path";
import { beginStep } from "../lib/activity.ts";
import { reasonOf } from "../lib/errors.ts";
import { lstatOf, readSmall } from "../lib/read-file.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import { openMappedRam } from "../qemu/ram-state.ts";
import { compareSums, loadSums } from "./checksums.ts";
import { SNAPSHOT, STATE } from "./layout.ts";

/** Lines in the note; the oldest are dropped. */
const MAX_NOTED = 100;

/** The file, and its checksum: one line. */
const lineOf = ({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats, sum: string): string =>
  [dev, ino, size, mtimeNs, ctimeNs, sum].join(" ");

const notePath = (cache: string): string => join(cache, "intact-ram");

function readNoted(cache: string | undefined): string[] {
  try {
    return cache === undefined ? [] : (readSmall(notePath(cache)) ?? "").split("\n").filter(Boolean);
  } catch {
    return [];
  }
}

/** Best effort: without it the file is read again. */
function noteLine(cache: string | undefined, line: string): void {
  if (cache === undefined) return;
  try {
    mkdirSync(cache, { recursive: true, mode: 0o700 });
    const beside = `${notePath(cache)}.${process.pid}`;
    const lines = [...readNoted(cache).filter((one) => one !== line), line].slice(-MAX_NOTED);
    writeFileSync(beside, lines.map((one) => `${one}\n`).join(""), { mode: 0o600 });
    renameSync(beside, notePath(cache));
  } catch {
    // HOME may be read-only or absent.
  }
}

const statIn = (path: string): BigIntStats => statSync(path, { bigint: true });

/** Notes that the RAM of a snapshot is as in its SHA256SUMS, which have just been computed. Best effort. */
export function noteIntactRam(dir: string, cache: string | undefined): void {
  try {
    const sum = loadSums(dir)?.sums.get(STATE.ram);
    if (sum !== undefined) noteLine(cache, lineOf(statIn(join(dir, STATE.ram)), sum));
  } catch {
    // It is compared when it is needed.
  }
}

/**
 * Compares the RAM of a snapshot with its checksum, unless that was done since the file was changed.
 * @param dir of the snapshot
 * @returns the damage: `state.ram: its checksum is wrong`
 */
export async function findRamDamage(dir: string, cache: string | undefined): Promise<string | undefined> {
  const path = join(dir, STATE.ram);
  try {
    if (!lstatOf(path)) return `${STATE.ram} is missing`;
    const sum = loadSums(dir)?.sums.get(STATE.ram);
    if (sum === undefined) return `${SNAPSHOT.sums} does not name ${STATE.ram}`;
    const found = statIn(path);
    const noted = readNoted(cache).includes(lineOf(found, sum));
    // Changes the mode of a new file, and thereby its ctime.
    closeSync(openMappedRam(path));
    const opened = statIn(path);
    if (noted && opened.ctimeNs === found.ctimeNs) return undefined;
    if (!(noted && opened.mtimeNs === found.mtimeNs)) {
      using _step = beginStep(() => `compare the RAM of ${basename(dir)} with its checksum`);
      const sizes = new Map([[STATE.ram, Number(opened.size)]]);
      const [wrong] = await compareSums(dir, { sizes, only: (name) => name === STATE.ram });
      if (wrong !== undefined) return wrong;
    }
    // Not if it has changed meanwhile.
    if (lineOf(statIn(path), sum) === lineOf(opened, sum)) noteLine(cache, lineOf(opened, sum));
    return undefined;
  } catch (error) {
    throwIfInterrupted();
    return `${STATE.ram}: ${reasonOf(error)}`;
  }
}
