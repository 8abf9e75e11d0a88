/** How long the program takes to start, and what it takes for itself before qemu starts. */
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { environment, median, ms, printTable, vm, within } from "./bench-table.ts";

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

/** The least program of the same Bun, compiled in the same way. */
function compileHello(scratch: string): string {
  writeFileSync(join(scratch, "hello.ts"), 'console.log("hello");\n');
  const options = ["--compile", "--minify", "--bytecode", "--format=esm"];
  const { exitCode, stderr } = Bun.spawnSync(
    [process.execPath, "build", ...options, "hello.ts", "--outfile", "hello"],
    { cwd: scratch, stdout: "ignore" },
  );
  if (exitCode !== 0) throw new Error(`cannot compile hello:\n${stderr}`);
  return join(scratch, "hello");
}

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
  return { total: until - begin, others, peakKiB: started?.peak };
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
  const hello = compileHello(scratch);
  const wrapped = environment(scratch, `${makeWrappers(scratch, log)}:${process.env.PATH}`);
  const timings = new Map<string, Timing[]>();
  const peaks = new Map<string, number[]>();

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

  const own = (name: string): number => median(timings.get(name)!.map(({ total, others }) => total - others));
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
  qemu-img, dd and sha256sum; own time holds the start of a shell for each of them, which notes the times.
  ${basename(vm)}: ${vm}`);
}
