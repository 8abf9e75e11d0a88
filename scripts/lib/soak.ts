/** The command line of scripts/soak; the work is in test/e2e/faults-*.ts. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Day } from "../../test/e2e/day.ts";
import {
  ALL_VARIANTS,
  canMount,
  raceBackups,
  sweepCalls,
  sweepFullDisk,
  sweepMoments,
  type SweepOptions,
  type Tally,
} from "../../test/e2e/faults-sweeps.ts";
import { sweepArrivingFull, sweepArrivingKills } from "../../test/e2e/arriving-faults.ts";
import { sweepAutostartKills, sweepMoveFull } from "../../test/e2e/autostart-faults.ts";
import { sweepChanges } from "../../test/e2e/changed-machine.ts";
import { sweepFlips } from "../../test/e2e/flip-faults.ts";
import { sweepExportFull, sweepExportKills } from "../../test/e2e/export-faults.ts";
import { sweepFileKills, sweepFilesFull } from "../../test/e2e/file-faults.ts";
import { canLoop, sweepErrors, sweepSmallDisks, sweepSmallLive } from "../../test/e2e/full-faults.ts";
import { sweepHostile } from "../../test/e2e/hostile-faults.ts";
import { ImageLab, sweepBits, sweepFull, sweepKills } from "../../test/e2e/image-faults.ts";
import { sweepRandomKills } from "../../test/e2e/kill-faults.ts";
import { sweepLiveKills } from "../../test/e2e/live-kill-faults.ts";
import { sweepRamClones, sweepRamSnapshots } from "../../test/e2e/ram-faults.ts";
import { sweepRamFull } from "../../test/e2e/ram-full-faults.ts";
import { sweepSuspends } from "../../test/e2e/suspend-faults.ts";
import { sweepMix } from "../../test/e2e/mixed-faults.ts";
import { SoakLabs, soakVariantName, type SoakSweep } from "../../test/e2e/soak-lab.ts";

const USAGE = `usage: scripts/soak [options]
  --quick        a sample of everything, in less than 90 seconds
  --only=POINTS  only these, with commas between: a point's name or its beginning, * for any field, such as
                   restore:bios:vm:fsync   restore:*:dd   kill:backup   signal   full:restore   race
                   images (snapshots of the format qcow2, merge and prune)   day
                   tests (the end-to-end tests with every variation; scripts/check takes another sample each day)
                   ram (suspends and resumes, snapshots with RAM, clones of these, kills, full disks; also one of them:
                   ram:suspend ram:snapshots ram:clones ram:full; ram:linux: without kills, a tenth of each with a Linux)
                   changes (of the hardware of a running VM, by BIOS and by UEFI)
                   kills   kills:restore gz:inplace   mix   full (also full:merge:tmpdir:calls)   flips   flips:inplace:17
                   export (exports and imports: --kills=N of each, and too little room; also export:import pipe:kill)
                   arriving (restore --from-remote --run: --kills=N of its processes, or the repository moved away, and
                   too little room; also arriving:keeper)
                   files (the same of snapshots get and restore --only; also files:get gz:kill)
                   hostile (filesystems in a snapshot: --fuzz=N of each type, and odd trees; also hostile:ext4)
                   autostart (the same of autostart on and off, and of move-work; also autostart:move in:kill)
  --kills=N      kills of backup and of restore each, and half as many of each of SIGTERM, SIGINT, SIGHUP (20)
  --random-kills=N  kills at random moments of all commands that change a VM, a fifth of a running one's backups (300)
  --minutes=N    four commands at once for so long, half of it in place (10)
  --changes=N    changes at random of a running VM's disks, CD, cards and forwards, with live backups between (200)
  --rounds=N     suspends and resumes of one guest, half as many snapshots with RAM, a quarter of clones (200)
  --steps=N      sizes of each small disk, and twice as many failing system calls of each command (6)
  --flips=N      flipped bits and bytes, and a fifth as many files cut short (1000)
  --hours=N      live snapshots of a busy Debian, one after the other, each restored and booted afterwards (24)
  --fuzz=N       fuzzed superblocks of each type of filesystem (20)
  --limit=N      at most N points for each command, fault and family of system calls, chosen at random
  --seed=N       for what is random (the day's number)
  --dir=DIR      where the sandboxes go (a file system in memory where one can be mounted)
  --workers=N    labs side by side (2)`;

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    only: { type: "string" },
    kills: { type: "string" },
    "random-kills": { type: "string", default: "300" },
    minutes: { type: "string", default: "10" },
    changes: { type: "string", default: "200" },
    rounds: { type: "string", default: "200" },
    steps: { type: "string", default: "6" },
    flips: { type: "string", default: "1000" },
    fuzz: { type: "string" },
    limit: { type: "string" },
    hours: { type: "string", default: "24" },
    seed: { type: "string" },
    dir: { type: "string" },
    workers: { type: "string", default: "2" },
    help: { type: "boolean", short: "h", default: false },
  },
});
if (values.help) {
  console.log(USAGE);
  process.exit();
}

const { quick } = values;
const seed = Number(values.seed ?? Math.floor(Date.now() / 86_400_000));
const kills = Number(values.kills ?? (quick ? 4 : 20));
const limit = values.limit === undefined ? (quick ? 1 : undefined) : Number(values.limit);
const mountable = canMount();

let parent = values.dir;
let mounted: string | undefined;
if (parent === undefined && mountable) {
  mounted = mkdtempSync(join(tmpdir(), "vm-soak-"));
  const { exitCode } = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "mode=700,size=75%", "vm-soak", mounted]);
  if (exitCode === 0) parent = mounted;
}
function unmount(): void {
  if (mounted === undefined) return;
  if (parent === mounted) Bun.spawnSync(["umount", "--lazy", mounted]);
  rmSync(mounted, { recursive: true, force: true });
}
process.on("exit", unmount);
for (const [index, signal] of (["SIGHUP", "SIGINT"] as const).entries())
  process.on(signal, () => process.exit(129 + index));
process.on("SIGTERM", () => process.exit(143));

let passed = 0;
let failed = 0;
function line(title: string, { points, violations, mixed }: Tally): void {
  passed += points - violations;
  failed += violations;
  const halfway = mixed > 0 ? `, ${mixed} halfway until the next command` : "";
  console.log(`${title.padEnd(45)} ${String(points).padStart(4)} points  ${violations} violations${halfway}`);
}

/** Violations that read the same but for names and numbers, with the points where they were seen. */
const kinds = new Map<string, string[]>();
function report(point: string, violation: string): void {
  const text = violation.replaceAll(/\/\S*vm-test-\w+/g, "…").trim();
  const [command, , target, call] = point.split(":");
  const what = text.replaceAll(/\b[0-9a-f]{8}\b|\d+/g, "N").split(/[;\n]|: {1,2}(?:\*|qemu|restoring)/)[0];
  const kind = `${command} ${target} ${call}: ${what}`;
  const points = kinds.get(kind) ?? [];
  kinds.set(kind, [...points, point]);
  if (points.length === 0) console.log(`  VIOLATION ${point}\n    ${text.replaceAll("\n", "\n    ")}`);
}

/** The same for points whose violations are sentences. */
function reportPoint(point: string, violation: string): void {
  const text = violation.replaceAll(/\/\S*vm-test-\w+/g, "…").trim();
  const what = text
    .replaceAll(/\b[0-9a-f]{8,}\b|\d+/g, "N")
    .replace(/(?:byte N of N \^|cut to N of) N/, "damaged");
  const kind = `${point.split(":").slice(0, 2).join(" ")}: ${what}`;
  const points = kinds.get(kind) ?? [];
  kinds.set(kind, [...points, point]);
  if (points.length === 0) console.log(`  VIOLATION ${point}\n    ${text.replaceAll("\n", "\n    ")}`);
}

const options: SweepOptions = {
  report,
  seed,
  ...(values.only === undefined ? {} : { only: values.only.split(",") }),
  ...(limit === undefined ? {} : { limit }),
  ...(parent === undefined ? {} : { parent }),
};
const started = performance.now();
console.log(`seed ${seed}; a point again: scripts/soak --seed=${seed} --only=POINT`);
const variants = quick ? ALL_VARIANTS.slice(0, 2) : ALL_VARIANTS;
await sweepCalls({ ...options, variants, workers: Number(values.workers) }, line);
const moments = { ...options, megabytes: quick ? 20 : 120 };
await sweepMoments({ ...moments, kills }, ["SIGKILL"], line);
await sweepMoments(
  { ...moments, kills: Math.ceil(kills * (quick ? 0.6 : 1.5)) },
  ["SIGTERM", "SIGINT", "SIGHUP"],
  line,
);
if (mountable)
  await sweepFullDisk({ ...options, steps: quick ? 2 : 12, some: quick && values.only === undefined }, line);
await raceBackups({ ...options, rounds: quick ? 4 : 20 }, line);

/** All sweeps of machines with saved RAM, or one. */
const wantedRam = (part: string): boolean => wanted("ram") || options.only?.includes(`ram:${part}`) === true;

/** What takes minutes is no part of a quick sample, unless it is named. */
const wanted = (what: string): boolean => options.only?.includes(what) ?? !quick;
if (wanted("images")) await disturbImages();
await suspendMachines();
if (wanted("changes")) await changeMachines();
await disturbAll();
if (wanted("tests")) await allTests();
if (wanted("day")) await liveDay();

function count(tallies: Map<string, Tally>, title: string, violations: readonly string[]): void {
  const { points, violations: before, mixed } = tallies.get(title) ?? { points: 0, violations: 0, mixed: 0 };
  tallies.set(title, { points: points + 1, violations: before + Number(violations.length > 0), mixed });
}

/** Snapshots that build on each other: the command reports what each sweep has found. */
async function disturbImages(): Promise<void> {
  using lab = await ImageLab.make(24, parent);
  const tallies = new Map<string, Tally>();
  const point = (name: string, violations: readonly string[]): void => {
    const title = name.replace(/^\d+ bytes of .*/, "cut off").replace(/ (?:at|of|,)? ?\d.*$|, \d.*$/, "");
    count(tallies, title, violations);
    for (const violation of violations) report(`images:${name}::`, violation);
  };
  const sweep = { lab, seed, point };
  await sweepKills(sweep, kills);
  if (mountable) await sweepFull(sweep, quick ? 1 : 8);
  await sweepBits(sweep, quick ? 2 : 40);
  for (const [title, tally] of tallies) line(`images        ${title}`, tally);
}

/** A guest whose number is in its RAM only. */
async function suspendMachines(): Promise<void> {
  const tallies = new Map<string, Tally>();
  const point = (name: string, violations: readonly string[]): void => {
    count(tallies, `ram           ${name.split(":")[1]}`, violations);
    for (const violation of violations) reportPoint(name, violation);
  };
  const tell = (): void => {
    for (const [title, tally] of tallies) line(title, tally);
    tallies.clear();
  };
  // What was done, if it is ended before.
  process.on("exit", tell);
  const rounds = Number(values.rounds);
  const sweep = { seed, point, parent };
  if (wantedRam("suspend")) await sweepSuspends(sweep, { rounds, kills });
  if (wantedRam("snapshots")) await sweepRamSnapshots(sweep, { rounds: Math.ceil(rounds / 2), kills });
  if (wantedRam("clones")) await sweepRamClones(sweep, { rounds: Math.ceil(rounds / 4), kills });
  if (wantedRam("full") && mountable) await sweepRamFull(sweep, { steps: Number(values.steps) });
  if (wantedRam("linux")) {
    const linux = { ...sweep, guest: "linux" } as const;
    await sweepSuspends(linux, { rounds: Math.ceil(rounds / 10), kills: 0 });
    await sweepRamSnapshots(linux, { rounds: Math.ceil(rounds / 20), kills: 0 });
    await sweepRamClones(linux, { rounds: Math.ceil(rounds / 40), kills: 0 });
  }
  tell();
}

/** The hardware of a running VM, half of the changes with each firmware. */
async function changeMachines(): Promise<void> {
  for (const uefi of [false, true]) {
    const tallies = new Map<string, Tally>();
    const point = (name: string, violations: readonly string[]): void => {
      count(tallies, `changes       ${uefi ? "UEFI" : "BIOS"}`, violations);
      for (const violation of violations) reportPoint(name, violation);
    };
    const changes = Math.ceil(Number(values.changes) / 2);
    await sweepChanges({ seed, point, parent }, { changes, each: 10, uefi });
    for (const [title, tally] of tallies) line(title, tally);
  }
}

/** Every command that changes a VM: killed, in parallel, on a full disk, on damaged files. */
async function disturbAll(): Promise<void> {
  const { only } = options;
  const patterns = only?.map((pattern) => pattern.split(":"));
  const sweepWanted = (point: string): boolean => {
    const fields = point.split(":");
    if (patterns === undefined) return !quick;
    return patterns.some((pattern) =>
      pattern.every((field, index) => ["*", fields[index] ?? field].includes(field)),
    );
  };
  const sweeps = ["kills", "mix", "full", "flips", "export", "files", "hostile", "arriving", "autostart"];
  if (!sweeps.some(sweepWanted)) return;
  await using labs = new SoakLabs(parent);
  let tallies = new Map<string, Tally>();
  const sweep: SoakSweep = {
    seed,
    labs,
    wanted: sweepWanted,
    ...(parent === undefined ? {} : { parent }),
    point: (name, violations) => {
      const [kind, what = "", where = ""] = name.split(":");
      // The third field of these is a number.
      const isNumbered = kind === "flips" || kind === "hostile";
      count(tallies, `${kind!.padEnd(13)} ${what}${isNumbered ? "" : ` ${where}`}`, violations);
      for (const violation of violations) reportPoint(name, violation);
    },
  };
  const lines = (): void => {
    for (const [title, tally] of tallies) line(title, tally);
    tallies = new Map();
  };
  // What was done, if it is ended before.
  process.on("exit", lines);
  const kill = quick ? 10 : Number(values["random-kills"]);
  if (sweepWanted("kills")) {
    await sweepRandomKills(sweep, kill - Math.floor(kill / 5));
    await sweepLiveKills(sweep, Math.floor(kill / 5));
    lines();
  }
  if (sweepWanted("mix")) {
    const seconds = quick ? 10 : (Number(values.minutes) * 60) / 2;
    for (const variant of [{ inplace: false }, { inplace: true }]) {
      const ends = await sweepMix(sweep, variant, { seconds });
      for (const [name, how] of ends)
        console.log(
          `  ${soakVariantName(variant)} ${name}: ${[...how].map(([status, times]) => `${times} × ${status}`).join(", ")}`,
        );
    }
    lines();
  }
  if (sweepWanted("full")) {
    const steps = quick ? 1 : Number(values.steps);
    if (mountable && (await canLoop())) {
      await sweepSmallDisks(sweep, steps);
      await sweepSmallLive(sweep, steps);
    } else console.log("  no loop device can be had here: small ext4 filesystems are left out");
    await sweepErrors(sweep, steps * 2);
    lines();
  }
  if (sweepWanted("export")) {
    if (mountable && (await canLoop())) await sweepExportFull(sweep, quick ? 1 : Number(values.steps));
    await sweepExportKills(sweep, kills);
    lines();
  }
  if (sweepWanted("files")) {
    if (mountable && (await canLoop())) await sweepFilesFull(sweep, quick ? 2 : Number(values.steps));
    await sweepFileKills(sweep, kills);
    lines();
  }
  if (sweepWanted("arriving")) {
    await sweepArrivingKills(sweep, kills, sweepWanted);
    if (mountable && (await canLoop()) && sweepWanted("arriving:full"))
      await sweepArrivingFull(sweep, quick ? 2 : Number(values.steps));
    lines();
  }
  if (sweepWanted("hostile")) {
    await sweepHostile(sweep, Number(values.fuzz ?? (quick ? 1 : 20)));
    lines();
  }
  if (sweepWanted("autostart")) {
    await sweepAutostartKills(sweep, kills);
    if (mountable) await sweepMoveFull(sweep, quick ? 2 : Number(values.steps));
    lines();
  }
  if (sweepWanted("flips")) {
    const flips = quick ? 20 : Number(values.flips);
    await sweepFlips(sweep, { flips, cuts: Math.ceil(flips / 5) });
    lines();
  }
}

/** The end-to-end tests with every variation. */
async function allTests(): Promise<void> {
  const argv = ["test", "--timeout=3600000", `--parallel=${values.workers}`, "./test/e2e"];
  const env = { ...process.env, VM_TEST_ALL: "1", VM_TEST_SEED: String(seed) };
  const child = Bun.spawn([process.execPath, ...argv], {
    env,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  await child.exited;
  const said = `${stdout}${stderr}`;
  const summary = (what: string): number =>
    Number(new RegExp(`^ *(\\d+) ${what}$`, "m").exec(said)?.[1] ?? 0);
  for (const [failure] of said.matchAll(/^\(fail\) .*$/gm)) console.log(`  VIOLATION ${failure}`);
  // Without a summary bun itself has died.
  const failures = Math.max(summary("fail"), Number(child.exitCode !== 0));
  line("tests", { points: summary("pass") + failures, violations: failures, mixed: 0 });
}

/** Snapshots of a running, busy guest. */
async function liveDay(): Promise<void> {
  const tally: Tally = { points: 0, violations: 0, mixed: 0 };
  using day = await Day.make();
  const hours = await day.live(Number(values.hours), (hour) => console.log(JSON.stringify(hour)));
  await day.box.ok(["verify", "--all", "--deep"], { timeoutSeconds: 900 });
  for (const hour of hours) {
    const violations = await day.judge(hour);
    tally.points++;
    tally.violations += Number(violations.length > 0);
    for (const violation of violations) report(`day:${hour.name}::`, violation);
  }
  line("day           live snapshots of a Debian", tally);
}

for (const [kind, points] of kinds) {
  const more = points.length > 8 ? ` and ${points.length - 8} more` : "";
  console.log(`${points.length} × ${kind.slice(0, 200)}\n    ${points.slice(0, 8).join(" ")}${more}`);
}
console.log(`${Math.round((performance.now() - started) / 1000)} s`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
