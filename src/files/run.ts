import { confineBy } from "../vm/jail.ts";
import { closeSync, ftruncateSync, mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { programLine } from "../lib/command-line.ts";
import { type ExitName, noSpaceError, VmError } from "../lib/errors.ts";
import { saysNoSpace } from "../lib/program-messages.ts";
import { lstatOf, readSmall, readSmallBytes } from "../lib/read-file.ts";
import { shellQuote } from "../lib/shell.ts";
import { counted, plain, quoteLine, REPLACEMENT } from "../lib/text.ts";
import { nameRescue } from "../job/job.ts";
import { findRescue, resolveRescueMachine } from "../job/rescue-machine.ts";
import { runRescue } from "../job/run.ts";
import { ARCH } from "../machine/arch.ts";
import type { Disk } from "../machine/types.ts";
import { probeQemu } from "../qemu/probe.ts";
import { FILES_JOB, FILES_PROGRAMS } from "../rescue/assets.ts";
import { createFile, freeBytes, replaceVolatile } from "../store/files.ts";
import { JOB, WORK } from "../store/layout.ts";
import { remove } from "../store/remove.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";
import { Media } from "../vm/media.ts";
import { encodePath } from "./escaped-path.ts";

/** What the job `files` does (scripts/rescue/files.job). */
export type FilesOperation =
  | "volumes"
  | "list"
  | "sums"
  | "pack"
  | "pack-all"
  | "find"
  | "serve"
  | "check"
  | "unpack";

const NUL = Buffer.from([0]);

/** One run of that job. */
export interface FilesJob {
  operation: FilesOperation;
  /** As the guest has them, or `FILESYSTEM:/PATH`. */
  paths: readonly string[];
  oneLevel?: boolean;
  /** Of `list`: before the time limit it ends with what there is (`readCut`). */
  partial?: boolean;
  disks: readonly Disk[];
  /** Image of the disk for the archive or the listing; raw. */
  result: string;
  /** Start of the error message: `cannot list S1`. */
  cannot: string;
  /** What a stop signal does; default: `stopping`. */
  stopping?: string;
  /** The command line that lists a directory, or without one the filesystems; absent: the working disks. */
  listing?: ((path?: string) => string) | undefined;
  /** Of `pack`: a directory becomes an archive with this name in it, which is as long as the file `archive` says. */
  stream?: string | undefined;
  /** Of LUKS devices. */
  keyFile?: string | undefined;
  /** Called when the job has started. */
  onStarted?: () => void;
}

/** A hostile filesystem may keep the rescue busy: limits in seconds, unless TIMEOUT is set. */
const LIMIT_SECONDS: Readonly<Record<FilesOperation, number | undefined>> = {
  volumes: 300,
  list: 600,
  sums: 3600,
  pack: 3600,
  "pack-all": 3600,
  find: 600,
  serve: undefined,
  check: 600,
  unpack: 3600,
};

/** Of the time limit; the rest is for the mounting before it, and for what is left to write. */
const LISTING_SHARE = 0.75;

/** Most of the job's log that is kept: the end. */
const LOG_BYTES = 16 << 10;
/** Left free on the filesystem of an archive. */
const RESERVE_BYTES = 64 << 20;
/** The largest listing: several million entries. */
export const MAX_LISTING_BYTES = 1 << 30;
/** A path, and a line end. */
const MAX_TEXT_BYTES = 8 << 10;
/** A disk's size is a multiple of it. */
const SECTOR_BYTES = 1 << 20;

/**
 * Creates the disk on which a job puts its result: sparse, and as large as the result may become. That bounds what a hostile
 * guest can write.
 */
export function createResult(path: string, limitBytes = Infinity): void {
  const room = Math.max(freeBytes(join(path, "..")) - RESERVE_BYTES, SECTOR_BYTES);
  const size = Math.max(Math.floor(Math.min(room, limitBytes) / SECTOR_BYTES), 1) * SECTOR_BYTES;
  const fd = createFile(path);
  try {
    ftruncateSync(fd, size);
  } finally {
    closeSync(fd);
  }
}

const resultDisk = (path: string, disks: readonly Disk[]): Disk => ({
  number: Math.max(-1, ...disks.map(({ number }) => number)) + 1,
  bus: "VIRT",
  format: "raw",
  path,
  serial: "result",
  backingAllowed: false,
});

/**
 * Runs the job `files` in the rescue, which has no network.
 * @param work where qemu has its files; its `.in` and `.out` are created again
 * @throws 66 for a missing file, 69, 73, 74, 124 at the time limit
 */
export async function runFilesJob(context: Context, vm: Vm, work: Workdir, job: FilesJob): Promise<void> {
  const { operation, paths, disks, result } = job;
  const isTemporary = operation !== "unpack";
  const named = await nameRescue(context, vm);
  const media = new Media(context, named);
  const found = await findRescue(context, named, media);
  const TIMEOUT = found.settings.TIMEOUT ?? LIMIT_SECONDS[operation];
  const rescue = { ...found, settings: { ...found.settings, TIMEOUT } };
  const capabilities = await probeQemu(ARCH[rescue.settings.QEMUARCH].binary, context.cacheDirectory);
  for (const name of [WORK.in, WORK.out]) {
    remove(join(work.dir, name));
    mkdirSync(join(work.dir, name), { mode: 0o700 });
  }
  const input = (name: string): string => join(work.dir, WORK.in, name);
  replaceVolatile(input(JOB.script), FILES_JOB);
  replaceVolatile(input("operation"), `${operation}\n`);
  replaceVolatile(input("paths"), Buffer.concat(paths.flatMap((path) => [encodePath(path), NUL])));
  if (job.keyFile !== undefined)
    replaceVolatile(input("luks.key"), readLuksKey(resolve(context.cwd, job.keyFile)));
  if (job.oneLevel) replaceVolatile(input("one-level"), "");
  if (job.partial && TIMEOUT !== undefined)
    replaceVolatile(input("seconds"), `${Math.max(1, Math.floor(TIMEOUT * LISTING_SHARE))}\n`);
  if (job.stream !== undefined)
    replaceVolatile(input("stream"), Buffer.concat([encodePath(job.stream), NUL]));
  for (const [name, text] of Object.entries(FILES_PROGRAMS))
    writeFileSync(input(name), text, { mode: 0o700, flag: "wx" });
  const all = [...disks, resultDisk(result, disks)];
  const machine = await resolveRescueMachine(context, named, work, media, rescue, capabilities, all);
  let log = Buffer.alloc(0);
  const write = async (piece: Uint8Array): Promise<void> => {
    log = Buffer.concat([log, piece]).subarray(-LOG_BYTES);
  };
  const run = {
    job: "files",
    rescue,
    machine,
    capabilities,
    confine: confineBy(context, vm.settings),
    quiet: true,
    stopping: job.stopping ?? "stopping",
    cannot: job.cannot,
    onStarted: job.onStarted,
  } as const;
  const status = await runRescue(context, work, run, write).catch((error: unknown) => {
    // Its hint may name a log in a directory that is removed now.
    throw error instanceof VmError && error.hint?.includes(work.dir) && isTemporary
      ? new VmError(error.code, error.message, { cause: error })
      : error;
  });
  if (status !== 0) throw jobError(job, work, status, log.toString());
}

const CODES: Readonly<Record<number, ExitName>> = { 66: "noInput", 69: "unavailable", 73: "cannotCreate" };

/** mount-system says where it has mounted what. */
const FOUND_SYSTEM = /^\/dev\/\S+ -> \/mnt\/system/;

/** tar, of a write that filled the filesystem; of the next one it gives the reason. */
const saysGuestFull = (line: string): boolean =>
  saysNoSpace(line) || /: Wrote only \d+ of \d+ bytes$/.test(line);

/** The job's last line says why it failed. Its text is from the rescue, where a hostile filesystem may have taken over. */
function jobError(job: FilesJob, work: Workdir, status: number, log: string): VmError {
  const { cannot } = job;
  const lines = log
    .split("\n")
    .filter((line) => line.trim() !== "" && !FOUND_SYSTEM.test(line))
    .map((line) => nameAsInGuest(line, job.paths));
  const reason = quoteLine(lines.at(-1) ?? `the job failed with status ${status}`);
  if (job.operation === "unpack" && lines.some(saysGuestFull) && !reason.includes("these were replaced"))
    return new VmError("cannotCreate", `${cannot}: no space left in the guest's filesystem`, {
      hint: "remove files there, or enlarge the disk",
    });
  if (saysNoSpace(lines.slice(-3).join("\n"))) return noSpaceError(cannot);
  const code = CODES[status] ?? "io";
  const before = code === "io" ? lines.slice(-4, -1).map((line) => `\n  ${quoteLine(line)}`) : [];
  const hints: Partial<Record<ExitName, string | undefined>> = {
    noInput: hintForMissing(job, work),
    io: hintForFixed(work),
    unavailable: `build the rescue again: ${programLine("rescue", "build")}`,
  };
  return new VmError(code, `${cannot}: ${reason}${before.join("")}`, { hint: hints[code] });
}

/** Pure: replaces paths of the rescue in a program's message by those of the guest. */
export const nameAsInGuest = (line: string, paths: readonly string[]): string =>
  line
    .replaceAll(/\/mnt\/system1(?=\/)/g, "")
    .replaceAll(/\/run\/volumes\/([^/]+)(?=\/)/g, "$1:")
    .replaceAll(/(?<=\/run\/files\/|^\S*tar: )(\d+)(?=[/:'])/g, (number) => paths[Number(number)] ?? number)
    .replaceAll("/run/files//", "/");

const PATTERN = /[*?[]/;

function hintForMissing({ listing, paths, keyFile }: FilesJob, work: Workdir): string | undefined {
  const opening =
    readAnswer(work, "closed") === undefined
      ? []
      : [
          keyFile === undefined
            ? "open LUKS by its passphrase, on a terminal, or by a file: --key-file=FILE"
            : `${shellQuote(plain(keyFile))} does not open all LUKS devices: give another --key-file, or a passphrase on a terminal`,
        ];
  if (!listing) return opening[0];
  const near = readAnswer(work, "nearest");
  const isPath = near !== undefined && /^([^/]+:)?\//.test(near) && plain(near) === near;
  return [
    ...(paths.some((path) => path.includes(REPLACEMENT))
      ? ["give a name that is not UTF-8 as ls shows it, in quotes, with --escaped"]
      : []),
    ...(paths.some((path) => path.includes("\\"))
      ? ["give a name with escapes as ls shows it, in quotes, with --escaped"]
      : []),
    ...(paths.some((path) => PATTERN.test(path)) ? ["patterns are not expanded: name a directory"] : []),
    ...opening,
    isPath ? `list ${near}: ${listing(near)}` : `list the filesystems: ${listing()}`,
  ].join("\n");
}

function hintForFixed(work: Workdir): string | undefined {
  const fixed = readAnswer(work, "fixed");
  return fixed === undefined || plain(fixed) !== fixed
    ? undefined
    : `run the VM, and there as root: chattr -i -a ${shellQuote(fixed.replace(/^[^/]*:/, ""))}`;
}

/** Most bytes of a key that cryptsetup reads by default. */
const MAX_KEY_BYTES = 8 << 20;

/** @throws 66 if it does not exist, 74 for no regular file, or one that is too large */
function readLuksKey(path: string): Buffer {
  const key = readSmallBytes(path, MAX_KEY_BYTES);
  if (key) return key;
  throw new VmError("noInput", `--key-file: no such file: ${plain(path)}`, {
    hint: "without it the passphrase is asked for on the terminal",
  });
}

/** A small file of `.out`, from the rescue; undefined if there is none. */
export function readAnswer(work: Workdir, name: string): string | undefined {
  const path = join(work.dir, WORK.out, name);
  return lstatOf(path)?.isFile() ? readSmall(path, MAX_TEXT_BYTES) : undefined;
}

/** The number in such a file; undefined for anything else. */
export function readCount(work: Workdir, name: string): number | undefined {
  const text = readAnswer(work, name)?.trim() ?? "";
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/** The job has left out what is deeper than a path can be. @throws 74 if it has */
export function requireAll(work: Workdir, cannot: string): void {
  const count = readCount(work, "long") ?? 0;
  if (count > 0)
    throw new VmError(
      "io",
      `${cannot}: ${counted(count, "path")} of more than 4095 bytes left out, with all that is below; the rest is there`,
    );
}
