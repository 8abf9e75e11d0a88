import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  statSync,
  unlinkSync,
  utimesSync,
  type Stats,
} from "node:fs";
import { join } from "node:path";
import { ownedByUs } from "../lib/trust.ts";
import { findProgram } from "../process/exec.ts";
import { listDirectory, removeQuietly, syncDescriptor, writeNew } from "../store/files.ts";
import { lstatOf, openForReading, readSmall, readSmallBytes } from "../lib/read-file.ts";
import { sha256 } from "../lib/crypto.ts";

/**
 * Saved states of rescues: a directory each, `PROFILE.HASH` or, with UEFI variables, `PROFILE.HASH.HASH`. It is complete
 * when it has that name, and its files are never changed: machines map the RAM.
 */
export const WARM_FILES = {
  /** RAM of the guest, sparse. */
  ram: "ram",
  /** Everything else, as qemu's migration stream. */
  devices: "devices",
  /** UEFI variables: the content of the flash chip. */
  variables: "variables",
  /** Id of the boot of this host in which the state was saved; removed when the files are known to be durable. */
  boot: "boot",
} as const;

/**
 * Part of the hash: states of another form are not used. 1: one file, a whole migration stream. 2: a machine without card and
 * shares.
 */
const FORMAT = 3;

/** Largest migration stream without the RAM: with UEFI it has the firmware. */
const MAX_DEVICES_BYTES = 64 << 20;
/** Largest content of the flash chip with the variables. */
export const MAX_STATE_VARIABLES_BYTES = 4 << 20;
/** States of one rescue for different UEFI variables. */
const MAX_UEFI_STATES = 3;
/** Time in which the kernel has written files back by itself (vm.dirty_expire_centisecs: 30 s). */
const WRITTEN_BACK_MS = 60_000;

/** What a saved state depends on, besides the argument list. */
export interface WarmKey {
  /** Name of the profile, which has one state at a time, and a few with UEFI variables. */
  profile: string;
  argv: readonly string[];
  qemuVersion: string;
  /** Kernel, initramfs and firmware. */
  files: readonly string[];
  /** Hash of the UEFI variables. */
  variables?: string | undefined;
}

const fileIdentityOf = (path: string): string => {
  const { size, mtimeMs, ino } = statSync(realpathSync(path));
  return `${path} ${size} ${mtimeMs} ${ino}`;
};

/** The guest's processor features depend on those of the host. */
const processor = (): string =>
  readFileSync("/proc/cpuinfo", "utf8")
    .split("\n\n")[0]!
    .split("\n")
    .filter((line) => /^(vendor_id|cpu family|model|stepping|microcode|flags)/.test(line))
    .join("\n");

/** Checksum of what the kernel says of the processor. */
export const sumProcessor = (): string => shortHash(processor());

const shortHash = (text: string): string => sha256(text).slice(0, 32);

/** Directory name with a checksum of all dependencies: if one changes, another state is made. */
export function stateName({ profile, argv, qemuVersion, files, variables }: WarmKey): string {
  const program = findProgram(argv[0]!) ?? argv[0]!;
  const facts = [
    FORMAT,
    qemuVersion,
    fileIdentityOf(program),
    ...argv,
    ...files.map(fileIdentityOf),
    processor(),
  ];
  const hash = shortHash(JSON.stringify(facts));
  return [profile, hash, ...(variables === undefined ? [] : [shortHash(variables)])].join(".");
}

/** A complete state, open: it can be used even if another process removes it. */
export interface WarmState extends Disposable {
  ram: number;
  devices: number;
  variables: Buffer | undefined;
}

/** The memory of a machine with access to the guest's disks: written by this user (or root), and readable to no other. */
const isPrivate = (stats: Stats): boolean => ownedByUs(stats) && (stats.mode & 0o077) === 0;

const bootId = (): string => readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();

/** Marks files of a state as durable only until this host is shut down: syncing them would take time. */
export const markVolatile = (directory: string): void => writeNew(join(directory, WARM_FILES.boot), bootId());

/**
 * Opens a saved state.
 * @param ramBytes size of the RAM
 * @returns undefined if there is none, or none that can be trusted
 */
export function openWarmState(path: string, ramBytes: number): WarmState | undefined {
  if (!lstatOf(path)) return undefined;
  const fds: number[] = [];
  const close = (): void => fds.splice(0).forEach(closeSync);
  try {
    const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY } = constants;
    const directory = openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    fds.push(directory);
    // All files of one state, even if the directory is replaced.
    const inside = (name: string): string => `/proc/self/fd/${directory}/${name}`;
    const open = (name: string, fits: (bytes: number) => boolean): number => {
      const fd = openForReading(inside(name));
      fds.push(fd);
      const stats = fstatSync(fd);
      if (isPrivate(stats) && fits(stats.size)) return fd;
      throw new Error(`cannot trust ${name}`);
    };
    if (!isPrivate(fstatSync(directory))) throw new Error(`cannot trust ${path}`);
    const boot = readSmall(inside(WARM_FILES.boot));
    if (boot !== undefined && boot !== bootId()) throw new Error("not known to be durable");
    const ram = open(WARM_FILES.ram, (bytes) => bytes === ramBytes);
    const devices = open(WARM_FILES.devices, (bytes) => bytes > 0 && bytes <= MAX_DEVICES_BYTES);
    const variables = readStateVariables(inside("."));
    return { ram, devices, variables, [Symbol.dispose]: close };
  } catch {
    close();
    return undefined;
  }
}

export const readStateVariables = (directory: string): Buffer | undefined =>
  readSmallBytes(join(directory, WARM_FILES.variables), MAX_STATE_VARIABLES_BYTES);

/** Records that a state is used; its files become durable without being waited for. Best effort. */
export async function keepState(path: string, { ram, devices }: WarmState): Promise<void> {
  try {
    const boot = join(path, WARM_FILES.boot);
    const saved = lstatOf(boot)?.mtimeMs;
    const now = Date.now();
    utimesSync(path, now / 1000, now / 1000);
    if (saved === undefined || now - saved < WRITTEN_BACK_MS) return;
    for (const fd of [ram, devices]) await syncDescriptor(fd);
    unlinkSync(boot);
  } catch {
    // It was removed, or it will be tried again.
  }
}

/** Time before a state that could not be made or used is tried again. */
const GIVEN_UP_MS = 24 * 3600 * 1000;
const FAILED = ".failed";

export function hasFailed(state: string): boolean {
  const stats = lstatOf(state + FAILED);
  return stats !== undefined && Date.now() - stats.mtimeMs < GIVEN_UP_MS;
}

/** A state that is not tried: jobs boot the rescue. */
export interface FailedState {
  /** Its record; without it the state is tried again. */
  path: string;
  until: Date;
}

const readFailed = (path: string): FailedState => ({
  path,
  until: new Date((lstatOf(path)?.mtimeMs ?? 0) + GIVEN_UP_MS),
});

/** Records that a state does not work on this host, and removes it. @returns undefined if the next job tries again */
export function giveUp(state: string): FailedState | undefined {
  removeQuietly(state);
  try {
    removeQuietly(state + FAILED);
    writeNew(state + FAILED, "");
    return readFailed(state + FAILED);
  } catch {
    return undefined;
  }
}

const statesIn = (cache: string): string => join(cache, "warm");

/** The directory of states, with how many there are and what they take of the disk; undefined without any. */
export function sumStates(cache: string): { directory: string; count: number; bytes: number } | undefined {
  const directory = statesIn(cache);
  if (!lstatOf(directory)?.isDirectory()) return undefined;
  const states = listDirectory(directory)
    .map((name) => join(directory, name))
    .filter((path) => lstatOf(path)?.isDirectory());
  const files = states.flatMap((path) => listDirectory(path).map((name) => join(path, name)));
  const bytes = files.reduce((sum, path) => sum + (lstatOf(path)?.blocks ?? 0) * 512, 0);
  return states.length === 0 ? undefined : { directory, count: states.length, bytes };
}

/** Those that do not work on this host, and are not tried now. */
export const listFailed = (cache: string): FailedState[] =>
  listDirectory(statesIn(cache))
    .filter(
      (name) => name.endsWith(FAILED) && hasFailed(join(statesIn(cache), name.slice(0, -FAILED.length))),
    )
    .map((name) => readFailed(join(statesIn(cache), name)));

/** Private directory of states. */
export function stateDirectory(cache: string): string {
  const directory = statesIn(cache);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  return directory;
}

/**
 * Removes the profile's other states: those that depended on the same as `keep`, besides the UEFI variables, remain if they
 * were used last. Those of other UEFI settings are not affected.
 */
export function removeOthers(directory: string, profile: string, keep: string): void {
  const [, hash, variables] = partsOf(profile, keep) ?? [];
  const others = listDirectory(directory).flatMap((name) => {
    const parts = partsOf(profile, name);
    const stats = parts && lstatOf(join(directory, name));
    return stats && !name.startsWith(keep) ? [{ name, parts, stats }] : [];
  });
  const removed = others.filter(({ parts, stats }) => {
    // Of format 1.
    if (stats.isFile() && parts[3] === undefined) return true;
    return (parts[2] === undefined) === (variables === undefined) && parts[1] !== hash;
  });
  const sisters = others
    .filter((one) => one.parts[1] === hash && one.stats.isDirectory())
    .toSorted((a, b) => b.stats.mtimeMs - a.stats.mtimeMs)
    .slice(MAX_UEFI_STATES - 1);
  for (const { name } of [...removed, ...sisters]) removeQuietly(join(directory, name));
}

const NAME = /^\.([0-9a-f]{32})(?:\.([0-9a-f]{32}))?(\.failed)?$/;

const partsOf = (profile: string, name: string): RegExpExecArray | undefined =>
  name.startsWith(`${profile}.`) ? (NAME.exec(name.slice(profile.length)) ?? undefined) : undefined;
