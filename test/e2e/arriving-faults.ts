/**
 * `restore --from-remote --run`, in which processes are killed (SIGKILL), the repository goes away, or the disk is full, at random
 * times. The guest writes all the time; each write that it has reported was flushed.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { listFuseMounts } from "../../src/process/mounts.ts";
import { ArrivingLab, DISK, START } from "./arriving-lab.ts";
import { seededRandom } from "./faults-lab.ts";
import { SmallExt4 } from "./full-faults.ts";
import { until, type Result, type Running } from "./harness.ts";
import { backing } from "./images.ts";
import type { PointSink } from "./soak-lab.ts";
import { badSpeech, lastLines } from "./soak-speech.ts";

export interface ArrivingSweep {
  seed: number;
  point: PointSink;
  parent?: string | undefined;
}

/** What fails. */
const FAULTS: Readonly<Record<string, (lab: ArrivingLab, command: Running) => unknown>> = {
  restic: (lab) => lab.kill(lab.restic),
  keeper: (lab) => lab.kill(lab.keeper),
  qemu: (lab) => lab.kill(lab.qemu),
  command: (_lab, command) => command.kill("SIGKILL"),
  // As a restart of the host.
  all: (lab) => lab.kill(/^/),
  "repository moved": (lab) => lab.moveAway(),
  "repository moved and restic": async (lab) => {
    lab.moveAway();
    await lab.kill(lab.restic);
  },
  "repository moved and all": async (lab) => {
    lab.moveAway();
    await lab.kill(/^/);
  },
};

/** restic reads so slowly that the guest runs for a while before all is copied. */
const KIB_PER_SECOND = 2000;
/** How long the guest runs on after the fault. */
const AFTER_MS = 2000;
const MIB = 1 << 20;

/** Has the guest write until disposal. */
function keepWriting(lab: ArrivingLab): AsyncDisposable {
  const over = new AbortController();
  const done = (async () => {
    while (!over.signal.aborted) {
      await lab.type("w").catch(() => {});
      await Bun.sleep(60);
    }
  })();
  return {
    async [Symbol.asyncDispose]() {
      over.abort();
      await done;
    },
  };
}

const spoken = (argv: readonly string[], result: Result): string[] =>
  badSpeech({ ...result, argv, seconds: 0, hung: result.stderr.includes("ended by the test after") });

/** The next command, as `status` names it. @returns what is wrong */
async function recover(lab: ArrivingLab): Promise<string[]> {
  const { box } = lab;
  const status = await box.vm(["status"]);
  const wrong = spoken(["status"], status);
  if (status.status !== 0) return [...wrong, `status: ${status.status}: ${lastLines(status.stderr)}`];
  const { state, arriving } = await lab.status();
  const off = state !== "running" && state !== "paused";
  if (arriving && !/incomplete: +disk-0\.img: /.test(status.stdout))
    wrong.push(`status does not say that the disk is incomplete: ${status.stdout}`);
  // Killed before the disks were replaced.
  const words = lab.isOld() ? START : off ? ["run", "--detach"] : ["resume"];
  if (lab.isOld() && !(await lab.holdsOld())) wrong.push("the previous disk is damaged");
  if (arriving && arriving.repository === "gone" && !status.stdout.includes(words.join(" ")))
    wrong.push(`status does not name ${words.join(" ")}: ${status.stdout}`);
  if (off || arriving?.repository === "gone") {
    const next = await box.vm(words);
    wrong.push(...spoken(words, next));
    if (next.status !== 0) wrong.push(`${words.join(" ")}: ${next.status}: ${lastLines(next.stderr)}`);
  }
  return wrong;
}

/** The VM completes its disk, which then is right, and needs nothing else. @param least what the guest has flushed */
async function judge(lab: ArrivingLab, least: number): Promise<string[]> {
  const { box } = lab;
  const wrong: string[] = [];
  await until("the record that the disk is complete", () => lab.isSettled());
  const { state } = await lab.status();
  if (state !== "running") wrong.push(`the guest is ${state}`);
  const { count } = await lab.write();
  if (count <= least) wrong.push(`a write is lost: the guest reads ${count - 1} after ${least}`);
  await until("the end of restic", async () => (await box.leftovers()).length <= 1, 120).catch(async () =>
    wrong.push(`left over: ${(await box.leftovers()).join(" | ")}`),
  );
  await lab.kill(lab.qemu);
  if ((await backing(join(box.work, DISK))) !== undefined) wrong.push("the disk has a backing file");
  lab.moveAway();
  const again = await lab.boot();
  if (again.count < count) wrong.push(`a write is lost: ${again.count} after ${count}`);
  if (again.far !== "a1a1a1a1") wrong.push(`the guest reads ${again.far}`);
  await lab.kill(lab.qemu);
  if (!(await lab.isAsInSnapshot())) wrong.push("the disk is not that of the snapshot");
  if (listFuseMounts(box.top).length > 0) wrong.push("a mount is left");
  return wrong;
}

/** Runs one point, from the old disk on. */
async function disturb(
  lab: ArrivingLab,
  wait: (command: Running) => Promise<unknown>,
  fault: (command: Running) => unknown,
): Promise<string[]> {
  await lab.load();
  lab.limit(KIB_PER_SECOND);
  const command = lab.box.start(START);
  const wrong: string[] = [];
  let least: number;
  {
    await using _writing = keepWriting(lab);
    await wait(command);
    await fault(command);
    await Bun.sleep(AFTER_MS);
    least = lab.lastCount();
  }
  lab.limit(undefined);
  if (lab.isAway()) {
    // It can be killed, or it fails, or it waits for the repository.
    const state = await lab.box.vm(["status", "--json"]);
    wrong.push(...spoken(["status", "--json"], state));
  }
  lab.bringBack();
  const result = await command.done;
  wrong.push(...spoken(START, result));
  least = Math.max(least, lab.lastCount());
  try {
    wrong.push(...(await recover(lab)), ...(await judge(lab, least)));
  } catch (error) {
    wrong.push(`${String(error)}\n${lab.describe()}`);
  }
  return wrong;
}

/** Kills so many times, at any time between the start of the command and the complete disk; each kind of fault in turn. */
export async function sweepArrivingKills(
  sweep: ArrivingSweep,
  kills: number,
  wanted: (name: string) => boolean = () => true,
): Promise<void> {
  using lab = await ArrivingLab.create("AHCI", sweep.parent);
  await lab.save();
  await disturbOften(lab, sweep, kills, wanted);
}

/** @param lab saved */
export async function disturbOften(
  lab: ArrivingLab,
  { seed, point }: ArrivingSweep,
  kills: number,
  wanted: (name: string) => boolean = () => true,
): Promise<void> {
  const random = seededRandom(seed + 7);
  let milliseconds = 0;
  const undisturbed = await disturb(
    lab,
    async () => {
      const begin = performance.now();
      await until("the record", () => existsSync(lab.box.path(".work")) && !lab.isOld() && lab.isSettled());
      milliseconds = performance.now() - begin;
    },
    () => {},
  );
  point("arriving:undisturbed", undisturbed);
  const faults = Object.entries(FAULTS).filter(([name]) => wanted(`arriving:${name}`));
  for (let turn = 0; turn < kills; turn++) {
    const [name, fault] = faults[turn % faults.length]!;
    const moment = random() * milliseconds;
    const wrong = await disturb(
      lab,
      () => Bun.sleep(moment),
      (command) => fault(lab, command),
    );
    point(`arriving:${name}:${turn}:${Math.round(moment)} of ${Math.round(milliseconds)} ms`, wrong);
  }
}

/** Less space than the working files need: none to nearly all. */
export async function sweepArrivingFull(
  { seed, point, parent }: ArrivingSweep,
  steps: number,
): Promise<void> {
  const random = seededRandom(seed + 8);
  using lab = await ArrivingLab.create("AHCI", parent);
  await lab.save();
  for (let step = 0; step < steps; step++) {
    const free = Math.floor(((step + random()) / steps) * 15 * MIB);
    await lab.load();
    await using disk = await SmallExt4.over(lab.box.tmp, join(lab.box.top, "ext4"), 200);
    // The check of the space that is needed at least would refuse it: what is free goes meanwhile.
    const early = step % 2 === 0;
    if (early) await disk.leave(free);
    const wrong = await disturbFull(lab, disk, early ? undefined : free);
    point(`arriving:full:${step}:${free} bytes`, wrong);
  }
}

async function disturbFull(lab: ArrivingLab, disk: SmallExt4, later: number | undefined): Promise<string[]> {
  lab.limit(KIB_PER_SECOND);
  const result = await lab.box.vm(START);
  lab.limit(undefined);
  const wrong = spoken(START, result);
  if (later === undefined && result.status !== 0) {
    if (result.status !== 73)
      wrong.push(`status ${result.status} instead of 73: ${lastLines(result.stderr)}`);
    if (!(lab.isOld() && (await lab.holdsOld()))) wrong.push("the previous disk is not whole");
  }
  let least: number;
  {
    await using _writing = keepWriting(lab);
    if (later !== undefined) await disk.leave(later);
    await Bun.sleep(AFTER_MS * 2);
    least = lab.lastCount();
    disk.enlarge();
    if (lab.isOld()) {
      const again = await lab.box.vm(START);
      if (again.status !== 0) wrong.push(`again: ${again.status}: ${lastLines(again.stderr)}`);
    }
  }
  try {
    wrong.push(...(await recover(lab)), ...(await judge(lab, Math.max(least, lab.lastCount()))));
  } catch (error) {
    wrong.push(`${String(error)}\n${lab.describe()}`);
  }
  // The sandbox is used again.
  lab.bringBack();
  await lab.kill(/^/);
  return wrong;
}
