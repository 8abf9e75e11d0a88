/** The faults: injected into system calls, kills and signals at times, full disks. */
import { existsSync, mkdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { binary, type Result } from "./harness.ts";
import {
  Lab,
  scenario,
  SCENARIOS,
  seededRandom,
  variantName,
  type Outcome,
  type Scenario,
  type Variant,
} from "./faults-lab.ts";

export interface Tally {
  points: number;
  violations: number;
  /** In-place changes that were incomplete before the next command. */
  mixed: number;
}

export interface SweepOptions {
  /** Called for each violation, with the point's name. */
  report: (point: string, violation: string) => void;
  /** Points with this prefix, by fields; all without. */
  only?: readonly string[];
  /** Maximum number of points per line, of half of the lines; chosen at random. */
  limit?: number;
  seed: number;
  /** Directory of the sandboxes. */
  parent?: string;
}

/** Does a point's name match a pattern such as `restore:*:dd`? Omitted fields match anything. */
function matches(point: string, only: readonly string[] | undefined): boolean {
  const fields = point.split(":");
  return (
    only === undefined ||
    only.some((pattern) =>
      pattern.split(":").every((field, index) => {
        const own = fields[index];
        return field === "*" || field === "" || own === undefined || own === field;
      }),
    )
  );
}

/** System calls that change files, by family. */
export const FAMILIES: Readonly<Record<string, readonly string[]>> = {
  write: ["write", "pwrite64", "writev", "pwritev", "pwritev2", "copy_file_range", "sendfile"],
  sync: ["fsync", "fdatasync", "sync_file_range"],
  rename: ["rename", "renameat", "renameat2"],
  unlink: ["unlink", "unlinkat", "rmdir"],
  make: ["mkdir", "mkdirat", "symlink", "symlinkat", "link", "linkat"],
  truncate: ["truncate", "ftruncate", "fallocate"],
};
/** Also reads, for an unreadable disk. */
const READS: readonly string[] = ["read", "pread64"];

/** Threads of qemu-img and thread pools wake each other by writes: their failure is not one of a disk. */
const isInternal = (target: Target, call: string, fault: Fault): boolean =>
  call === "write" && (target === "qemu-img" || (target === "all" && fault !== "KILL"));

const familyOf = (call: string): string =>
  Object.keys(FAMILIES).find((name) => FAMILIES[name]!.includes(call)) ?? "read";

export type Fault = "KILL" | "ENOSPC" | "EIO";
export const FAULTS: readonly Fault[] = ["KILL", "ENOSPC", "EIO"];

/** `vm`: the program's main thread. `all`: every thread of the program and its children, each with its own count. */
type Target = "vm" | "all" | "cat" | "pigz" | "dd" | "sha256sum" | "qemu-img";
const TARGETS: readonly Target[] = ["vm", "all", "cat", "pigz", "dd", "sha256sum", "qemu-img"];

interface Point {
  scenario: Scenario;
  variant: Variant;
  target: Target;
  call: string;
  fault: Fault;
  when: number;
}

const nameOf = ({ scenario: { name }, variant, target, call, fault, when }: Point): string =>
  [name, variantName(variant), target, call, fault, when].join(":");

/** A full disk stays full, but an error message can still be written; a hardware fault occurs once. */
function injection({ call, fault, when }: Point): string {
  if (fault === "KILL") return `${call}:signal=KILL:when=${when}`;
  return `${call}:error=${fault}:when=${when}${fault === "ENOSPC" && familyOf(call) !== "write" ? "+" : ""}`;
}

/** strace counts `when` per thread, so a child is traced alone: by a program of its name on PATH. */
class Tracer {
  readonly #bin: string;
  readonly log: string;

  constructor(top: string) {
    this.#bin = `${top}.store/bin`;
    this.log = `${top}.store/trace`;
    mkdirSync(this.#bin, { recursive: true });
    for (const name of ["cat", "pigz", "dd", "sha256sum", "qemu-img"]) {
      const real = Bun.which(name);
      const script = `#!/bin/sh
if [ "$FAULT_PROGRAM" = ${name} ]; then
  case "$(readlink /proc/$$/fd/0) $(readlink /proc/$$/fd/1) $*" in
    *"$FAULT_FILE"*) exec strace -f -qq -A -o "$FAULT_LOG" -e "trace=$FAULT_CALLS" -e signal=none $FAULT_INJECT -- ${real} "$@" ;;
  esac
fi
exec ${real} "$@"
`;
      writeFileSync(join(this.#bin, name), script, { mode: 0o755 });
    }
  }

  /** Runs a command with the calls of one target traced, and one of them disturbed. */
  async run(lab: Lab, target: Target, calls: readonly string[], command: readonly string[], inject?: string) {
    rmSync(this.log, { force: true });
    const argv = [binary, ...lab.args(command)];
    const trace = calls.map((call) => `?${call}`).join(",");
    const result =
      target === "vm" || target === "all"
        ? await lab.spawn([
            "strace",
            ...(target === "all" ? ["-f"] : []),
            "-qq",
            "-o",
            this.log,
            "-e",
            `trace=${trace}`,
            "-e",
            "signal=none",
            ...(inject ? ["-e", `inject=${inject}`] : []),
            "--",
            ...argv,
          ])
        : await lab.spawn(argv, {
            env: {
              PATH: `${this.#bin}:${process.env.PATH}`,
              FAULT_PROGRAM: target,
              // One of several parallel children; checksums are computed by one.
              FAULT_FILE: target === "sha256sum" ? "" : "disk-1.img",
              FAULT_LOG: this.log,
              FAULT_CALLS: trace,
              FAULT_INJECT: inject ? `-e inject=${inject}` : "",
            },
          });
    const text = existsSync(this.log) ? readFileSync(this.log, "utf8") : "";
    return { result, text };
  }
}

/** The calls of a target, with their numbers. */
function countCalls(text: string): Map<string, number> {
  const counts = new Map<string, number>();
  const perThread = new Map<string, number>();
  for (const line of text.split("\n")) {
    const match = /^(\d+ +)?([a-z0-9_]+)\(/.exec(line);
    if (!match) continue;
    const key = `${match[1]}${match[2]}`;
    const count = (perThread.get(key) ?? 0) + 1;
    perThread.set(key, count);
    counts.set(match[2]!, Math.max(count, counts.get(match[2]!) ?? 0));
  }
  return counts;
}

const wasHit = (text: string, fault: Fault): boolean =>
  fault === "KILL"
    ? text.includes("+++ killed by SIGKILL") || / = \?$/m.test(text)
    : text.includes("(INJECTED)");

/** Allowed exit statuses after a fault. */
function expectationOf({ target, call, fault }: Point): Pick<Outcome, "fault" | "expected" | "mayLeaveRest"> {
  if (fault === "KILL" && target === "vm") return { fault: "kill" };
  // Depends on the process that is hit: mostly the program itself.
  if (fault === "KILL" && target === "all") return { fault: "kill" };
  if (fault === "KILL") return { fault: "child-killed", expected: [74] };
  const family = familyOf(call);
  // A child that cannot be loaded fails in many ways; no filesystem lacks space to remove a file.
  let expected = fault === "ENOSPC" ? [73] : [74];
  if (family === "read") expected = [69, 70, 73, 74];
  // It writes to a pipe of the program, and does not report why that failed.
  if (target === "sha256sum") expected = [73, 74];
  if (family === "make") expected = [73, 74];
  if (family === "unlink") return { fault: "error", expected: [73, 74], mayLeaveRest: true };
  return { fault: "error", expected };
}

/** The labs and the tracer of one worker. */
class Bench implements Disposable {
  readonly #labs = new Map<string, Promise<{ lab: Lab; tracer: Tracer }>>();
  constructor(
    readonly megabytes: number,
    readonly parent: string | undefined,
  ) {}

  get(variant: Variant): Promise<{ lab: Lab; tracer: Tracer }> {
    const name = variantName(variant);
    const made =
      this.#labs.get(name) ??
      Lab.make(variant, this.megabytes, this.parent).then((lab) => ({
        lab,
        tracer: new Tracer(lab.box.top),
      }));
    this.#labs.set(name, made);
    return made;
  }

  async dispose(): Promise<void> {
    for (const made of this.#labs.values()) (await made.catch(() => undefined))?.lab[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    void this.dispose();
  }
}

/** Disturbs one system call and asks the oracle. @returns undefined if the call was not made that often */
async function tryPoint(bench: Bench, point: Point, turn: number) {
  const { lab, tracer } = await bench.get(point.variant);
  lab.load(point.scenario.template);
  const { target, call } = point;
  const { result, text } = await tracer.run(lab, target, [call], point.scenario.command, injection(point));
  if (!wasHit(text, point.fault)) return undefined;
  return lab.judge(point.scenario, { ...result, ...expectationOf(point) }, turn);
}

/** cat reads the disk for pigz, as pigz hangs after a read error; a pipe never fails like that. */
const readsPipe = (target: Target, name: string): boolean => target === "pigz" && name.startsWith("backup");

/** The points of a sweep, learned by running each command once per target. */
async function learn(
  bench: Bench,
  { variants, only, limit, seed }: SweepOptions & { variants: readonly Variant[] },
): Promise<Point[]> {
  const points: Point[] = [];
  const random = seededRandom(seed);
  for (const item of SCENARIOS)
    for (const variant of variants)
      for (const target of TARGETS) {
        // NVRAM matters in the main thread only, as does the directory of the working files.
        if ((variant.uefi && target !== "vm") || (variant.inplace && target === "all")) continue;
        const prefix = `${item.name}:${variantName(variant)}:${target}`;
        if (!matches(prefix, only) || (limit !== undefined && random() < 0.5)) continue;
        const { lab, tracer } = await bench.get(variant);
        lab.load(item.template);
        const isChild = target !== "vm" && target !== "all";
        const calls =
          target === "all"
            ? ["write", "fsync"]
            : [...Object.values(FAMILIES).flat(), ...(isChild && !readsPipe(target, item.name) ? READS : [])];
        const { result, text } = await tracer.run(lab, target, calls, item.command);
        if (result.status !== 0) throw new Error(`${prefix} fails undisturbed: ${result.stderr}`);
        for (const [call, count] of countCalls(text)) {
          // Most reads are of libraries, and of data in many pieces.
          const step = READS.includes(call) ? Math.ceil(count / 10) : 1;
          for (const fault of familyOf(call) === "read" ? (["EIO"] as const) : FAULTS)
            for (let when = 1; when <= count && !isInternal(target, call, fault); when += step)
              points.push({ scenario: item, variant, target, call, fault, when });
        }
      }
  return points.filter((point) => matches(nameOf(point), only));
}

function shuffle<T>(items: T[], random: () => number): T[] {
  for (let index = items.length - 1; index > 0; index--) {
    const other = Math.floor(random() * (index + 1));
    [items[index], items[other]] = [items[other]!, items[index]!];
  }
  return items;
}

export const ALL_VARIANTS: readonly Variant[] = [
  { inplace: false, uefi: false },
  { inplace: true, uefi: false },
  { inplace: false, uefi: true },
];

/**
 * Sweeps KILL, ENOSPC and EIO over every call of the program and its children that changes files.
 * @param line called with each command, fault and family when it is complete
 */
export async function sweepCalls(
  options: SweepOptions & { variants: readonly Variant[]; workers: number; groups?: number },
  line: (title: string, tally: Tally) => void,
): Promise<void> {
  const benches = Array.from({ length: options.workers }, () => new Bench(2, options.parent));
  try {
    const groups = Map.groupBy(
      await learn(benches[0]!, options),
      ({ scenario: { name }, fault, call }) =>
        `${name.padEnd(13)} ${fault.padEnd(7)} ${familyOf(call).padEnd(9)}`,
    );
    const random = seededRandom(options.seed);
    const chosen =
      options.groups === undefined ? [...groups] : shuffle([...groups], random).slice(0, options.groups);
    for (const [title, all] of chosen) {
      const points = options.limit === undefined ? all : shuffle(all, random).slice(0, options.limit);
      const tally: Tally = { points: 0, violations: 0, mixed: 0 };
      const one = async (bench: Bench, point: Point): Promise<boolean> => {
        const verdict = await tryPoint(bench, point, options.seed + (Bun.hash.crc32(nameOf(point)) % 1000));
        if (!verdict) return false;
        tally.points++;
        if (verdict.mixedBefore) tally.mixed++;
        if (verdict.violations.length > 0) tally.violations++;
        for (const violation of verdict.violations) options.report(nameOf(point), violation);
        return true;
      };
      const waiting = [...points];
      const work = async (bench: Bench): Promise<void> => {
        for (let point = waiting.shift(); point; point = waiting.shift()) {
          const hit = await one(bench, point);
          // A run may make a few more calls than the learned one.
          const { call, target, variant, when } = point;
          const isLast = !all.some(
            (item) =>
              item.call === call && item.target === target && item.variant === variant && item.when > when,
          );
          if (hit && isLast && options.limit === undefined && when < 500) {
            const further = { ...point, when: when + 1 };
            all.push(further);
            if (matches(nameOf(further), options.only)) waiting.push(further);
          }
        }
      };
      await Promise.all(benches.map(work));
      line(title, tally);
    }
  } finally {
    await Promise.all(benches.map((bench) => bench.dispose()));
  }
}

export interface MomentOptions extends SweepOptions {
  kills: number;
  megabytes: number;
}

/** Sends signals at times spread evenly over a command's duration. */
export async function sweepMoments(
  options: MomentOptions,
  signals: readonly NodeJS.Signals[],
  line: (title: string, tally: Tally) => void,
): Promise<void> {
  const random = seededRandom(options.seed);
  const bench = new Bench(options.megabytes, options.parent);
  const kind = signals.includes("SIGKILL") ? "kill" : "signal";
  try {
    for (const name of ["backup", "restore"]) {
      if (!matches(`${kind}:${name}`, options.only)) continue;
      const item = scenario(name);
      const tally: Tally = { points: 0, violations: 0, mixed: 0 };
      const times = new Map<string, number>();
      for (let index = 0; index < options.kills; index++) {
        // The redo log of an in-place restore gets some kills, too.
        const variant = { inplace: index % 4 === 3, uefi: false };
        const { lab } = await bench.get(variant);
        const key = variantName(variant);
        if (!times.has(key)) {
          lab.load(item.template);
          times.set(key, (await lab.spawn([binary, ...lab.args(item.command)])).seconds);
        }
        const moment = ((index + random()) / options.kills) * times.get(key)! * 1.05;
        const signal = signals[index % signals.length]!;
        const point = [kind, name, key, signal, index, `${Math.round(moment * 1000)} ms`].join(":");
        lab.load(item.template);
        let late = false;
        const result = await lab.spawn([binary, ...lab.args(item.command)], {
          during: async (pid) => {
            await Bun.sleep(moment * 1000);
            try {
              process.kill(pid, signal);
            } catch {
              late = true;
            }
          },
        });
        const fault = late ? "none" : kind;
        const verdict = await lab.judge(item, { ...result, fault }, index, false);
        tally.points++;
        if (verdict.mixedBefore) tally.mixed++;
        if (verdict.violations.length > 0) tally.violations++;
        for (const violation of verdict.violations) options.report(point, violation);
      }
      line(`${name.padEnd(13)} ${signals.map((signal) => signal.slice(3)).join("/")} at moments`, tally);
    }
  } finally {
    await bench.dispose();
  }
}

function mountCommand(argv: readonly string[]): void {
  const { exitCode, stderr } = Bun.spawnSync([...argv], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  if (exitCode !== 0) throw new Error(`${argv.join(" ")}: ${stderr.toString().trim()}`);
}

/** Mounts a small filesystem over a directory, with its files. Unmounted on disposal. */
class SmallDisk implements Disposable {
  constructor(
    readonly path: string,
    keepIn: string,
  ) {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    rmSync(keepIn, { recursive: true, force: true });
    mountCommand(["cp", "-a", path, keepIn]);
    mountCommand(["mount", "-t", "tmpfs", "-o", "size=1g,mode=700", "vm-faults", path]);
    mountCommand(["cp", "-a", `${keepIn}/.`, path]);
  }
  used(): number {
    const { blocks, bfree, bsize } = statfsSync(this.path);
    return (blocks - bfree) * bsize;
  }
  usedFiles(): number {
    const { files, ffree } = statfsSync(this.path);
    return files - ffree;
  }
  limit(what: string): void {
    mountCommand(["mount", "-o", `remount,${what}`, this.path]);
  }
  [Symbol.dispose](): void {
    try {
      mountCommand(["umount", this.path]);
    } catch {
      mountCommand(["umount", "--lazy", this.path]);
    }
  }
}

interface Filling {
  scenario: string;
  inplace: boolean;
  /** Files on the small disk, relative to the sandbox. */
  place: string;
}

const FILLINGS: readonly Filling[] = [
  { scenario: "create", inplace: false, place: "tmp" },
  { scenario: "create", inplace: true, place: "vm1" },
  { scenario: "backup-first", inplace: false, place: "vm1/backups" },
  { scenario: "backup", inplace: false, place: "vm1/backups" },
  { scenario: "backup", inplace: true, place: "vm1" },
  { scenario: "restore", inplace: false, place: "tmp" },
  { scenario: "restore-none", inplace: false, place: "tmp" },
  { scenario: "restore", inplace: true, place: "vm1" },
  { scenario: "restore", inplace: false, place: "vm1" },
  { scenario: "destroy", inplace: false, place: "vm1" },
  { scenario: "destroy", inplace: true, place: "vm1" },
];

/**
 * Runs commands on filesystems with slightly less space than they need, in bytes and in inodes.
 * @param options `steps`: sizes for each, the last ones just too small; `some`: half of them, chosen at random
 */
export async function sweepFullDisk(
  options: SweepOptions & { steps: number; some?: boolean },
  line: (title: string, tally: Tally) => void,
): Promise<void> {
  const random = seededRandom(options.seed);
  const bench = new Bench(2, options.parent);
  try {
    for (const { scenario: name, inplace, place } of FILLINGS)
      for (const unit of ["size", "nr_inodes"] as const) {
        const title = ["full", name, inplace ? "bios+inplace" : "bios", place, unit];
        if (!matches(title.join(":"), options.only) || (options.some && random() < 0.5)) continue;
        const { lab } = await bench.get({ inplace, uefi: false });
        const item = scenario(name);
        const tally: Tally = { points: 0, violations: 0, mixed: 0 };
        const measure = (disk: SmallDisk): number => (unit === "size" ? disk.used() : disk.usedFiles());
        /** @returns undefined without a limit: initial use, and additional need */
        const attempt = async (limit?: number) => {
          lab.load(item.template);
          using disk = new SmallDisk(join(lab.box.top, place), `${lab.box.top}.store/aside`);
          const begin = measure(disk);
          if (limit !== undefined) disk.limit(`${unit}=${limit}`);
          let most = begin;
          const watch = setInterval(() => (most = Math.max(most, measure(disk))), 2);
          const result: Result & { seconds: number } = await lab.spawn([binary, ...lab.args(item.command)]);
          clearInterval(watch);
          if (limit === undefined)
            return { begin, need: Math.max(most, measure(disk)), status: result.status };
          disk.limit("size=1g,nr_inodes=100k");
          const verdict = await lab.judge(
            item,
            { ...result, fault: "error", expected: [73] },
            tally.points++,
          );
          if (result.status !== 0 && !/no room|no space/i.test(result.stderr))
            verdict.violations.push(`the message does not speak of room: ${result.stderr.trim()}`);
          if (name === "destroy" && result.status !== 0)
            verdict.violations.push("what makes room must work where there is none");
          if (verdict.mixedBefore) tally.mixed++;
          if (verdict.violations.length > 0) tally.violations++;
          for (const violation of verdict.violations) options.report([...title, limit].join(":"), violation);
          return { begin, need: limit, status: result.status };
        };
        const { begin, need } = await attempt();
        const grain = unit === "size" ? 4096 : 1;
        const limits: number[] = [];
        const range = Math.max(need - begin, grain);
        for (let step = 0; step < options.steps; step++)
          limits.push(begin + Math.floor((range * step) / options.steps / grain) * grain);
        for (let step = options.steps >> 1; step >= 0; step--) limits.push(need - step * grain);
        // Further, up to success: the observed use was less than the maximum.
        const tried = new Set<number>();
        for (const limit of limits.filter((value) => value >= begin && value > 0)) {
          if (tried.has(limit)) continue;
          tried.add(limit);
          await attempt(limit);
        }
        for (let more = 1; more <= 64; more *= 2)
          if ((await attempt(need + more * grain)).status === 0) break;
        line(
          `${name.padEnd(13)} full    ${unit === "size" ? "bytes" : "inodes"} of ${place}${inplace ? ", in place" : ""}`,
          tally,
        );
      }
  } finally {
    await bench.dispose();
  }
}

/** Can this user mount a tmpfs here? */
export function canMount(): boolean {
  const probe = Bun.spawnSync(
    ["sh", "-c", 'd=$(mktemp -d) && mount -t tmpfs none "$d" && umount "$d"; s=$?; rmdir "$d"; exit $s'],
    {
      stdout: "ignore",
      stderr: "ignore",
    },
  );
  return probe.exitCode === 0;
}

/** Several backups of one VM at once. */
export async function raceBackups(
  options: SweepOptions & { rounds: number },
  line: (title: string, tally: Tally) => void,
): Promise<void> {
  if (!matches("race:backup", options.only)) return;
  const bench = new Bench(8, options.parent);
  const tally: Tally = { points: 0, violations: 0, mixed: 0 };
  try {
    const { lab } = await bench.get({ inplace: false, uefi: false });
    for (let round = 0; round < options.rounds; round++) {
      lab.load("first");
      const words = round % 2 === 0 ? ["backup"] : ["backup", "S0"];
      const results = await Promise.all([1, 2, 3].map(() => lab.vm(words)));
      const wrong: string[] = [];
      const made = results.filter(({ status }) => status === 0).length;
      const { snapshots, last } = lab.look();
      if (Object.keys(snapshots).length !== made)
        wrong.push(`${made} said done, there are: ${Object.keys(snapshots).join(" ")}`);
      if (made === 0) wrong.push("none was made");
      if (words.length === 2 && made !== 1) wrong.push(`${made} made S0`);
      for (const { status, stderr } of results)
        if (![0, 75, ...(words.length === 2 ? [73] : [])].includes(status ?? -1))
          wrong.push(`status ${status}: ${stderr.trim()}`);
      for (const [name, content] of Object.entries(snapshots))
        if (content !== "A") wrong.push(`${name} is ${content}`);
      if (last !== `S${made - 1}`) wrong.push(`LAST is ${last}`);
      const rest = lab.leftovers();
      if (rest.length > 0) wrong.push(`left-overs: ${rest.join(" ")}`);
      tally.points++;
      if (wrong.length > 0) tally.violations++;
      for (const violation of wrong) options.report(`race:backup:${round}`, violation);
    }
    line("backup        three at once", tally);
  } finally {
    await bench.dispose();
  }
}
