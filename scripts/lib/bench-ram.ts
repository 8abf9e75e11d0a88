/** How long a VM takes to be suspended, and to be resumed until its guest answers, by the size of its RAM. */
import { connect, type Socket } from "node:net";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { formatSize } from "../../src/lib/size.ts";
import { RamVm } from "../../test/e2e/ram-vm.ts";
import { readAnswers } from "../../test/guests/ram.ts";
import { median, printTable, within } from "./bench-table.ts";

const SIZES_MIB = [256, 1024, 4096];
const LIMITS = { suspendSeconds: 0.4, resumeSeconds: 0.7, spread: 1.2, clonePssMiB: 40, eightClones: 4 };
const RETRY_MS = 2;

const seconds = (from: number): number => (performance.now() - from) / 1000;

/** From now on until the guest has answered on its console, in seconds. */
async function untilAnswer(vm: RamVm): Promise<number> {
  const begin = performance.now();
  const directory = vm.box.work;
  const count = (): number => {
    try {
      return readAnswers(readFileSync(join(directory, "console.log"), "latin1")).length;
    } catch {
      return 0;
    }
  };
  let socket: Socket | undefined;
  for (; socket === undefined; await Bun.sleep(RETRY_MS))
    socket = await new Promise<Socket | undefined>((resolve) => {
      const tried: Socket = connect(join(directory, "console.sock"), () => resolve(tried));
      tried.on("error", () => resolve(undefined));
    });
  // What qemu receives before it has loaded the state of the serial port is lost.
  for (; count() === 0; await Bun.sleep(RETRY_MS)) socket.write("?");
  const took = seconds(begin);
  socket.destroy();
  return took;
}

interface Round {
  suspend: number;
  /** Of a machine that was resumed before: its RAM is in the file already. */
  again: number;
  resume: number;
}

async function measure(vm: RamVm): Promise<Round> {
  const suspend = async (): Promise<number> => {
    const begin = performance.now();
    await vm.box.ok(["suspend"]);
    return seconds(begin);
  };
  await vm.run();
  await vm.booted();
  const first = await suspend();
  const [, resume] = await Promise.all([vm.run(), untilAnswer(vm)]);
  const wrong = await vm.judge();
  if (wrong.length > 0) throw new Error(wrong.join("; "));
  const again = await suspend();
  await vm.box.ok(["stop", "--force"]);
  return { suspend: first, again, resume };
}

const s = (value: number, limit: number): string =>
  within(`${value.toFixed(3)} s (≤ ${limit} s)`, value <= limit);

interface Clones {
  /** That the guest is paused for, and the whole command. */
  pause: number;
  backup: number;
  one: number;
  eight: number;
  /** Of qemu, of a linked clone beside the first one, MiB. */
  pss: number;
}

/** The pause of `backup --ram`, and linked clones of that snapshot until all guests run. */
async function measureClones(vm: RamVm, name: string): Promise<Clones> {
  const { box } = vm;
  await vm.run();
  await vm.booted();
  const since = Date.now();
  let begin = performance.now();
  await box.ok(["backup", "--ram", "--format=qcow2", name]);
  const backup = seconds(begin);
  const events = readFileSync(join(vm.work, "events.out"), "utf8");
  const at = (event: string): number =>
    Math.max(
      ...events.split("\n").flatMap((line) => {
        if (!line.includes(`"${event}"`)) return [];
        const { timestamp } = JSON.parse(line) as { timestamp: { seconds: number; microseconds: number } };
        return [timestamp.seconds + timestamp.microseconds / 1e6];
      }),
    );
  const pause = at("STOP") * 1000 >= since ? at("RESUME") - at("STOP") : Number.NaN;
  await box.ok(["stop", "--force"]);
  const clone = async (count: number): Promise<{ took: number; pss: number[] }> => {
    begin = performance.now();
    await box.ok(["clone", "--keep-guest", "--linked", "--run", `--count=${count}`, name, `../${name}x`]);
    const took = seconds(begin);
    const pss: number[] = [];
    const clones = Array.from({ length: count }, (_, index) => vm.cloneIn(`${name}x${index + 1}`, vm));
    for (const one of clones) {
      const { pid } = JSON.parse((await one.ok("status", "--json")).stdout) as { pid: number };
      const [, kib = "0"] = /^Pss: +(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8")) ?? [];
      pss.push(Number(kib) / 1024);
    }
    for (const one of clones) await one.ok("destroy", "--force");
    for (const one of clones) rmSync(one.clone!, { recursive: true });
    return { took, pss };
  };
  const one = await clone(1);
  const two = await clone(2);
  const eight = await clone(8);
  // What the second one adds: both share what one has alone.
  const pss = two.pss.reduce((sum, part) => sum + part, 0) - one.pss[0]!;
  return { pause, backup, one: one.took, eight: eight.took, pss };
}

/** Prints medians of linked clones that run at once. */
export async function benchClones(rounds: number): Promise<void> {
  const rows: string[][] = [];
  for (const size of SIZES_MIB.slice(0, 2)) {
    using vm = await RamVm.make(`MEMORY=${size}M`);
    const all: Clones[] = [];
    for (let round = 0; round < rounds; round++) all.push(await measureClones(vm, `r${round}`));
    const of = (name: keyof Clones): number => median(all.map((one) => one[name]));
    const times = of("eight") / of("one");
    rows.push([
      formatSize(size * 2 ** 20),
      `${of("pause").toFixed(3)} s`,
      `${of("backup").toFixed(3)} s`,
      `${of("one").toFixed(3)} s`,
      within(
        `${of("eight").toFixed(3)} s, ${times.toFixed(1)} × (≤ ${LIMITS.eightClones})`,
        times <= LIMITS.eightClones,
      ),
      within(`${of("pss").toFixed(1)} MiB (≤ ${LIMITS.clonePssMiB})`, of("pss") <= LIMITS.clonePssMiB),
    ]);
  }
  printTable(`Snapshots with RAM, and linked clones that run at once, medians of ${rounds}`, [
    ["RAM", "pause", "backup --ram", "1 clone", "8 clones", "PSS of a second clone"],
    ...rows,
  ]);
}

/** Prints medians. @param rounds of each size */
export async function benchRam(rounds: number): Promise<void> {
  const rows: { size: number; saved: string; suspend: number; again: number; resume: number }[] = [];
  for (const size of SIZES_MIB) {
    using vm = await RamVm.make(`MEMORY=${size}M`);
    const all: Round[] = [];
    for (let round = 0; round < rounds; round++) all.push(await measure(vm));
    await vm.run();
    await vm.booted();
    const { stderr } = await vm.box.ok(["suspend"]);
    const saved = /suspended: (.*) of RAM/.exec(stderr)?.[1] ?? "?";
    const of = (name: keyof Round): number => median(all.map((one) => one[name]));
    rows.push({ size, saved, suspend: of("suspend"), again: of("again"), resume: of("resume") });
  }
  const resumes = rows.map(({ resume }) => resume);
  printTable(`Suspend and resume, medians of ${rounds}`, [
    ["RAM", "saved", "suspend", "suspend again", "resume until the guest answers"],
    ...rows.map(({ size, saved, suspend, again, resume }) => [
      formatSize(size * 2 ** 20),
      saved,
      s(suspend, LIMITS.suspendSeconds),
      s(again, LIMITS.suspendSeconds),
      s(resume, LIMITS.resumeSeconds),
    ]),
  ]);
  const spread = Math.max(...resumes) / Math.min(...resumes);
  console.log(
    `\n  slowest resume: ${within(`${spread.toFixed(2)} times the fastest (≤ ${LIMITS.spread})`, spread <= LIMITS.spread)}`,
  );
  await benchClones(rounds);
}
