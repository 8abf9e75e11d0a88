/** How long the program takes to start, and what it takes for itself before qemu starts. */
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { environment, median, ms, printTable, vm as measured, within } from "./bench-table.ts";

/** Milliseconds since 1970, with fractions, as bash's EPOCHREALTIME gives them to the wrappers. */
const now = (): number => performance.timeOrigin + performance.now();

/** How many times as long as hello each may take; the others are for information. */
const LIMITS: Record<string, number> = {
  "vm --version": 1.2,
  "vm -h": 1.8,
  "vm status": 1.8,
  "vm list": 1.8,
  "vm __complete (Tab)": 1.8,
  "vm run": 3,
  "vm backup": 3,
  "vm job": 3,
};

/**
 * Copies a program by one write, as all are that are compared: of how a file was written depends in what pieces it is in the
 * page cache, and the same bytes take up to a third longer to start.
 */
function copyProgram(from: string, to: string): string {
  writeFileSync(to, readFileSync(from));
  chmodSync(to, 0o755);
  return to;
}

/** Compiles a program with the same Bun as the measured one. */
function compile(scratch: string, name: string, text: string): string {
  writeFileSync(join(scratch, `${name}.ts`), text);
  const options = ["--compile", "--minify", "--bytecode", "--format=esm"];
  const { exitCode, stderr } = Bun.spawnSync(
    [process.execPath, "build", ...options, `${name}.ts`, "--outfile", `${name}.built`],
    { cwd: scratch, stdout: "ignore" },
  );
  if (exitCode !== 0) throw new Error(`cannot compile ${name}:\n${stderr}`);
  return copyProgram(join(scratch, `${name}.built`), join(scratch, name));
}

/** The least that run, backup and job have in common: files, a lock by bun:ffi, and zx that starts a program. */
const LEAST_START = `
import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { dlopen } from "bun:ffi";
import { $, quote } from ${JSON.stringify(join(import.meta.dir, "../../node_modules/zx/build/core.js"))};
const { flock } = dlopen("libc.so.6", { flock: { args: ["i32", "i32"], returns: "i32" } }).symbols;
const fd = openSync(join(process.cwd(), "lock"), "w");
flock(fd, 2);
$.shell = "sh";
$.quote = quote;
const launch = (_: string, __: string[], options: object) =>
  spawn("setpriv", ["--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-name"], { ...options, shell: false });
await $({ nothrow: true, quiet: true, stdio: "ignore", spawn: launch as never })\`qemu\`;
closeSync(fd);
`;

/**
 * Stand in for other programs and note when these ran, and how much memory their parent had taken by then; the machine
 * itself is not started.
 */
function makeWrappers(scratch: string, log: string): string {
  const directory = join(scratch, "wrappers");
  mkdirSync(directory);
  for (const name of ["qemu-system-x86_64", "qemu-img", "pigz", "dd", "sha256sum"]) {
    const real = Bun.which(name);
    const file = join(directory, name);
    writeFileSync(
      file,
      `#!/bin/bash
start=$EPOCHREALTIME
while read -r key value _; do [ "$key" != VmHWM: ] || peak=$value; done </proc/$PPID/status
if [ "$1" = -name ]; then
  echo "start $start $start $peak" >>'${log}'
  exit 1
fi
'${real}' "$@"
status=$?
echo "${name === "pigz" ? "start" : "other"} $start $EPOCHREALTIME $peak" >>'${log}'
exit $status
`,
    );
    chmodSync(file, 0o755);
  }
  return directory;
}

/** A rescue as far as a job looks at it before qemu does, and a job. */
function makeRescue(scratch: string): void {
  const directory = join(scratch, "home/vm/rescue-x86_64");
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const kernel = Buffer.alloc(4096);
  kernel.write("HdrS", 0x202);
  writeFileSync(join(directory, "vmlinuz"), kernel);
  writeFileSync(join(directory, "initrd"), "");
  writeFileSync(join(directory, "guest.env"), "RESCUE_KERNEL=vmlinuz\nRESCUE_INITRD=initrd\n");
}

interface Timing {
  /** From exec to the first start of the machine or of pigz, or to the program's end. */
  total: number;
  /** Of that, how long other programs ran. */
  others: number;
  /** How many shells noted that; the start of each is in the rest. */
  shells: number;
  /** The program's most memory by then, where another program has seen it. */
  peakKiB: number | undefined;
}

function readTiming(log: string, begin: number, end: number): Timing {
  const entries = readFileSync(log, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.split(" "))
    .map(([kind, from, to, peak]) => ({
      kind,
      from: Number(from) * 1000,
      to: Number(to) * 1000,
      peak: Number(peak),
    }))
    .toSorted((a, b) => a.from - b.from);
  const started = entries.find(({ kind }) => kind === "start");
  const until = started?.from ?? end;
  let others = 0;
  let covered = begin;
  for (const { from, to } of entries) {
    const stop = Math.min(to, until);
    others += Math.max(0, stop - Math.max(from, covered));
    covered = Math.max(covered, stop);
  }
  const shells = entries.filter(({ from }) => from <= until).length;
  return { total: until - begin, others, shells, peakKiB: started?.peak };
}

/** How long a stand-in takes from its exec until it notes its start. */
function measureShell(log: string, wrapper: string): number {
  writeFileSync(log, "");
  const script = `echo "other $EPOCHREALTIME $EPOCHREALTIME 0" >>'${log}'; exec '${wrapper}' -name`;
  Bun.spawnSync(["bash", "-c", script], { stdio: ["ignore", "ignore", "ignore"] });
  const [before, started] = readFileSync(log, "utf8")
    .split("\n")
    .map((line) => Number(line.split(" ")[1]));
  return (started! - before!) * 1000;
}

/** The most memory of a program that starts no other one. GNU time: Bun counts a child with this process. */
function measurePeak(argv: readonly string[], cwd: string, env: Record<string, string>): number {
  const { stderr } = Bun.spawnSync(["/usr/bin/time", "-q", "-f", "%M", ...argv], {
    cwd,
    env,
    stdout: "ignore",
  });
  return Number(stderr.toString().trim().split("\n").at(-1));
}

const factor = (value: number): string => (Number.isNaN(value) ? "" : `${value.toFixed(2)} ×`);

export function benchStart(scratch: string, rounds: number): void {
  const log = join(scratch, "started.log");
  const host = join(scratch, "start");
  const iso = join(scratch, "cd.iso");
  mkdirSync(host, { mode: 0o700 });
  writeFileSync(iso, Buffer.alloc(65536));
  makeRescue(scratch);
  const hello = compile(scratch, "hello", 'console.log("hello");\n');
  const least = compile(scratch, "least", LEAST_START);
  const vm = copyProgram(measured, join(scratch, basename(measured)));
  const wrappers = makeWrappers(scratch, log);
  const wrapped = environment(scratch, `${wrappers}:${process.env.PATH}`);
  const timings = new Map<string, Timing[]>();
  const peaks = new Map<string, number[]>();
  const shells: number[] = [];

  const measure = (name: string, argv: string[]): void => {
    writeFileSync(log, "");
    const begin = now();
    Bun.spawnSync(argv, { cwd: host, env: wrapped, stdin: "ignore", stdout: "ignore", stderr: "ignore" });
    const timing = readTiming(log, begin, now());
    timings.set(name, [...(timings.get(name) ?? []), timing]);
    if (timing.others > 0 && timing.peakKiB === undefined) return;
    const peak = timing.peakKiB ?? measurePeak(argv, host, wrapped);
    peaks.set(name, [...(peaks.get(name) ?? []), peak]);
  };
  /** Whose end is another state: its memory is not measured, for that takes a second run. */
  const change = (argv: string[]): void =>
    void Bun.spawnSync(argv, {
      cwd: host,
      env: wrapped,
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
    });

  for (let round = 0; round <= rounds; round++) {
    // The first round only warms the page cache.
    if (round === 1) for (const map of [timings, peaks]) map.clear();
    change([vm, "create", "bench", iso]);
    change([vm, "backup", "S0"]);
    writeFileSync(join(host, "trivial.job"), "");
    measure("hello", [hello]);
    shells.push(measureShell(log, join(wrappers, "qemu-system-x86_64")));
    measure("the least that starts a program with zx", [least]);
    measure("vm --version", [vm, "--version"]);
    measure("vm -h", [vm, "-h"]);
    measure("vm backup -h", [vm, "backup", "-h"]);
    measure("vm --nonsense", [vm, "--nonsense"]);
    measure("vm status", [vm, "status"]);
    measure("vm list", [vm, "list"]);
    measure("vm __complete (Tab)", [vm, "__complete", "bash", "vm restore "]);
    rmSync(join(scratch, "home/.cache"), { recursive: true, force: true });
    measure("vm run, the first time with this qemu", [vm, "run"]);
    measure("vm run", [vm, "run"]);
    measure("vm --uefi run", [vm, "--uefi", "run"]);
    measure("vm backup", [vm, "backup"]);
    measure("vm job", [vm, "job", "trivial"]);
    change([vm, "destroy"]);
    rmSync(host, { recursive: true });
    mkdirSync(host, { mode: 0o700 });
  }

  const shellMs = median(shells);
  const own = (name: string): number =>
    median(timings.get(name)!.map((timing) => timing.total - timing.others - timing.shells * shellMs));
  const peakOf = (name: string): number => median(peaks.get(name) ?? [Number.NaN]);
  printTable(
    `Start-up, beside a compiled hello of the same Bun: median of ${rounds}, one after the other in each round`,
    [
      ["command", "own time", "of hello's", "limit", "other programs", "memory", "of hello's"],
      ...[...timings.keys()].map((name) => {
        const times = own(name) / own("hello");
        const limit = LIMITS[name];
        const peak = peakOf(name);
        return [
          name,
          ms(own(name)),
          factor(times),
          limit === undefined ? "" : within(`${limit} ×`, times <= limit),
          ms(median(timings.get(name)!.map(({ others }) => others))),
          Number.isNaN(peak) ? "" : `${(peak / 1024).toFixed(1)} MiB`,
          factor(peak / peakOf("hello")),
        ];
      }),
    ],
  );
  console.log(`
  Until the machine or pigz starts, or to the end where neither does. Other programs are qemu (asked what it can do),
  qemu-img, dd and sha256sum. The start of the shell that notes the times of each is taken off: ${ms(shellMs)}.
  ${basename(measured)}: ${measured}`);
}
