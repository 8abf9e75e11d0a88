/** How long the program takes to start, and what it takes for itself before qemu starts. */
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { environment, median, ms, printTable, vm, within } from "./bench-table.ts";

const OWN_LIMIT_MS = 120;

/** Milliseconds since 1970, with fractions, as bash's EPOCHREALTIME gives them to the wrappers. */
const now = (): number => performance.timeOrigin + performance.now();

/** Stand in for other programs and note when these ran; the machine itself is not started. */
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
if [ "$1" = -name ]; then
  echo "machine $start $start" >>'${log}'
  exit 1
fi
'${real}' "$@"
status=$?
echo "other $start $EPOCHREALTIME" >>'${log}'
exit $status
`,
    );
    chmodSync(file, 0o755);
  }
  return directory;
}

interface Timing {
  /** From exec to the machine's start, or to the program's end. */
  total: number;
  /** Of that, how long other programs ran. */
  others: number;
}

function readTiming(log: string, begin: number, end: number): Timing {
  const entries = readFileSync(log, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.split(" "))
    .map(([kind, from, to]) => ({ kind, from: Number(from) * 1000, to: Number(to) * 1000 }));
  const until = entries.find(({ kind }) => kind === "machine")?.from ?? end;
  let others = 0;
  let covered = begin;
  for (const { from, to } of entries.toSorted((a, b) => a.from - b.from)) {
    const stop = Math.min(to, until);
    others += Math.max(0, stop - Math.max(from, covered));
    covered = Math.max(covered, stop);
  }
  return { total: until - begin, others };
}

export function benchStart(scratch: string, rounds: number): void {
  const log = join(scratch, "started.log");
  const host = join(scratch, "start");
  const iso = join(scratch, "cd.iso");
  mkdirSync(host, { mode: 0o700 });
  writeFileSync(iso, Buffer.alloc(65536));
  const wrapped = environment(scratch, `${makeWrappers(scratch, log)}:${process.env.PATH}`);
  const plain = environment(scratch);
  const timings = new Map<string, Timing[]>();

  const spawn = (argv: string[], env: Record<string, string>): Timing & { stderr: string } => {
    writeFileSync(log, "");
    const begin = now();
    const { stderr } = Bun.spawnSync(argv, { cwd: host, env, stdin: "ignore", stdout: "ignore" });
    return { ...readTiming(log, begin, now()), stderr: stderr.toString() };
  };
  const measure = (name: string, argv: string[], env = wrapped): void => {
    const list = timings.get(name) ?? [];
    timings.set(name, list);
    list.push(spawn(argv, env));
  };

  for (let round = 0; round <= rounds; round++) {
    // The first round only warms the page cache.
    if (round === 1) timings.clear();
    measure("bash -c true", ["bash", "-c", "true"], plain);
    measure("vm --version", [vm, "--version"], plain);
    measure("vm --help", [vm, "--help"]);
    measure("vm backup --help", [vm, "backup", "--help"]);
    measure("vm __complete (Tab)", [vm, "__complete", "bash", "vm restore "], plain);
    measure("vm --nonsense", [vm, "--nonsense"]);
    measure("vm create", [vm, "create", "bench", iso]);
    rmSync(join(scratch, "home/.cache"), { recursive: true, force: true });
    measure("vm run, the first time with this qemu", [vm, "run"]);
    measure("vm run", [vm, "run"]);
    measure("vm --uefi run", [vm, "--uefi", "run"]);
    measure("vm backup", [vm, "backup", "S0"]);
    measure("vm restore", [vm, "restore", "S0"]);
    measure("vm destroy", [vm, "destroy"]);
    rmSync(host, { recursive: true });
    mkdirSync(host, { mode: 0o700 });
  }

  const middle = (name: string, of: (timing: Timing) => number): number => median(timings.get(name)!.map(of));
  const bash = middle("bash -c true", ({ total }) => total);
  const version = middle("vm --version", ({ total }) => total);
  const limit = 1.5 * (bash + 20);
  printTable(`Start-up: median of ${rounds}, one after the other in each round`, [
    ["command", "time", "limit"],
    ["bash -c true", ms(bash), ""],
    ["vm --version", ms(version), within(`${ms(limit)} = 1.5 × (bash + 20 ms)`, version <= limit)],
  ]);
  const names = [...timings.keys()].filter((name) => name.startsWith("vm ") && name !== "vm --version");
  const own = ({ total, others }: Timing): number => total - others;
  printTable(`To the machine's start, or to the end where there is none: median of ${rounds}`, [
    ["command", "time", "other programs", "own", "own, worst", `own <= ${OWN_LIMIT_MS} ms`],
    ...names.map((name) => {
      const ours = middle(name, own);
      return [
        name,
        ms(middle(name, ({ total }) => total)),
        ms(middle(name, ({ others }) => others)),
        ms(ours),
        ms(Math.max(...timings.get(name)!.map(own))),
        ours <= OWN_LIMIT_MS ? "yes" : "NO",
      ];
    }),
  ]);
  console.log(
    `\n  Other programs are ${["qemu", "qemu-img", "pigz", "dd", "sha256sum"].join(", ")}; own time holds the start of a shell`,
  );
  console.log(`  (about ${ms(bash)}) for each of them, which notes the times. ${basename(vm)}: ${vm}`);
}
