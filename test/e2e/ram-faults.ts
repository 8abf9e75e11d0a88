/** Snapshots with RAM of one guest, restored and resumed, and killed at any time; each must be one point in time. */
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { QmpClient } from "../../src/qmp/client.ts";
import type { RamRecord } from "../guests/ram.ts";
import { seededRandom } from "./faults-lab.ts";
import { RamVm } from "./ram-vm.ts";
import type { SuspendSweep } from "./suspend-faults.ts";

export const RAM_BACKUP = ["backup", "--ram", "--format=qcow2"];

/** The guest's record in the RAM of a snapshot of the format qcow2 (test/guests/ram.ts). */
export function readRecordInRam(path: string): RamRecord {
  const bytes = readFileSync(path).subarray(0x8000, 0x8008);
  return { number: bytes.readUInt32LE(0), count: bytes.readUInt32LE(4) };
}

/** A guest that keeps running, and a qemu without anything of a backup. @returns what is wrong */
export async function judgeRunning(vm: RamVm): Promise<string[]> {
  const client = await QmpClient.connect(join(vm.box.work, "qmp.sock"), 10_000);
  try {
    const { status } = await client.execute("query-status");
    const nodes = await client.execute("query-named-block-nodes", { flat: true });
    const left = nodes.map((node) => node["node-name"]).filter((name) => name?.startsWith("vm-"));
    return [
      ...(status === "running" ? [] : [`the guest is ${status}`]),
      ...left.map((name) => `left in qemu: ${name}`),
      ...(await vm.judge()),
    ];
  } finally {
    client.close();
  }
}

/** Resumes a restored snapshot of the guest with this number. @returns what is wrong */
export async function judgeRestored(vm: RamVm, name: string, number: number): Promise<string[]> {
  const record = await vm.record();
  const ram = join(vm.box.host, "backups", name, "state.ram");
  const wrong: string[] = [];
  if (record.number !== number) wrong.push(`the disk of ${name} has another guest's record`);
  if (vm.guest === "sector" && (await Bun.file(ram).exists())) {
    const saved = readRecordInRam(ram);
    if (saved.number !== record.number || saved.count !== record.count)
      wrong.push(`${name}: ${saved.count} in RAM, ${record.count} on the disk`);
  }
  vm.number = number;
  vm.count = record.count;
  await vm.run();
  return [...wrong, ...(await vm.judge())];
}

/** Makes, restores and resumes `rounds` snapshots, then kills `kills` of each command. */
export async function sweepRamSnapshots(
  { seed, point, parent, guest }: SuspendSweep,
  { rounds, kills }: { rounds: number; kills: number },
): Promise<void> {
  const random = seededRandom(seed);
  using vm = await RamVm.make("", parent, guest);
  const { box } = vm;
  await vm.run();
  await vm.booted();
  const { number } = vm;
  const begun = performance.now();
  await box.ok([...RAM_BACKUP, "base"]);
  const spanMs = performance.now() - begun;
  for (let round = 0; round < rounds; round++) {
    const name = `round${round}`;
    const format = round % 3 === 2 ? "gz" : "qcow2";
    await box.ok(["backup", "--ram", `--format=${format}`, name]);
    const wrong = await judgeRunning(vm);
    await box.ok(["stop", "--force"]);
    await box.ok(["restore", name]);
    wrong.push(...(await judgeRestored(vm, name, number)));
    point(`ram:snapshots:${round}`, wrong);
    // At times back to the first one, and without those that no disk depends on.
    if (round % 10 !== 9) continue;
    await box.ok(["stop", "--force"]);
    await box.ok(["restore", "base"]);
    await box.ok(["prune", "--keep-last=1"]);
    point(`ram:again:${round}`, await judgeRestored(vm, "base", number));
  }
  const kill = async (words: readonly string[]): Promise<void> => {
    const running = box.start(words);
    await Bun.sleep(random() * spanMs);
    running.kill("SIGKILL");
    await running.done;
  };
  for (let turn = 0; turn < kills; turn++) {
    await kill(RAM_BACKUP);
    await box.ok([...RAM_BACKUP, `after${turn}`]);
    point(`ram:kill backup:${turn}`, await judgeRunning(vm));
    await box.ok(["stop", "--force"]);
    await kill(["restore", "base"]);
    await box.ok(["restore", `after${turn}`]);
    point(`ram:kill restore:${turn}`, await judgeRestored(vm, `after${turn}`, number));
  }
  await box.ok(["stop", "--force"]);
  const { status, stdout } = await box.vm(["verify", "--all"]);
  point("ram:verify:0", status === 0 ? [] : [stdout]);
}

/** Running clones of a snapshot with the RAM of `vm`. @returns what is wrong */
export async function judgeClones(vm: RamVm, snapshot: string, names: readonly string[]): Promise<string[]> {
  const ram = join(vm.box.host, "backups", snapshot, "state.ram");
  const known = vm.guest === "sector" && existsSync(ram);
  const saved = known ? readRecordInRam(ram) : { number: vm.number, count: 0 };
  const wrong = await Promise.all(
    names.map(async (name) => {
      const clone = vm.cloneIn(name, saved);
      return (await clone.judge()).map((text) => `${name}: ${text}`);
    }),
  );
  return wrong.flat();
}

/** Ends running clones, whose disks must have what their RAM had. @returns what is wrong */
export async function endClones(vm: RamVm, names: readonly string[]): Promise<string[]> {
  const wrong: string[] = [];
  for (const name of names) {
    const clone = vm.cloneIn(name, vm);
    const { count } = await clone.ask();
    await clone.ok("stop", "--force");
    const record = await clone.record();
    if (record.number !== vm.number) wrong.push(`${name}: its disk has another guest's record`);
    // The guest counts before it writes.
    if (record.count < count - 1) wrong.push(`${name}: ${record.count} on its disk, ${count} in RAM`);
  }
  return wrong;
}

/** A third of them are full. */
const cloneWords = (round: number): string[] => {
  const linked = round % 3 === 2 ? [] : ["--linked"];
  return ["clone", "--keep-guest", "--run", ...linked, "--count=2", "base", "../c"];
};

/** Makes `rounds` clones that run at once, then kills `kills` of `clone --run` and of `rename`. */
export async function sweepRamClones(
  { seed, point, parent, guest }: SuspendSweep,
  { rounds, kills }: { rounds: number; kills: number },
): Promise<void> {
  const random = seededRandom(seed);
  using vm = await RamVm.make("", parent, guest);
  const { box } = vm;
  await vm.run();
  await vm.booted();
  await box.ok([...RAM_BACKUP, "base"]);
  const names = ["c1", "c2"];
  const exists = (name: string): boolean => existsSync(join(box.top, name, ".work"));
  const clear = async (name: string): Promise<void> => {
    const place = join(box.top, name);
    if (exists(name)) await box.ok(["-d", place, "destroy", "--force"]);
    rmSync(place, { recursive: true, force: true });
  };
  let spanMs = 1000;
  for (let round = 0; round < Math.max(1, Math.ceil(rounds / names.length)); round++) {
    const begun = performance.now();
    await box.ok(cloneWords(round));
    spanMs = performance.now() - begun;
    const wrong = [
      ...(await judgeClones(vm, "base", names)),
      ...(await vm.judge()),
      ...(await endClones(vm, names)),
    ];
    for (const name of names) await clear(name);
    point(`ram:clones:${round}`, wrong);
  }
  for (let turn = 0; turn < kills; turn++) {
    const running = box.start(cloneWords(turn));
    await Bun.sleep(random() * spanMs);
    running.kill("SIGKILL");
    await running.done;
    const made = names.filter(exists);
    const wrong: string[] = [];
    for (const name of made) {
      // It runs, or it has its state still.
      const { status, stderr } = await box.vm(["-d", join(box.top, name), "run", "--detach"]);
      if (status !== 0 && status !== 75) wrong.push(`run of ${name} ended with ${status}: ${stderr}`);
    }
    wrong.push(...(await judgeClones(vm, "base", made)), ...(await endClones(vm, made)));
    for (const name of names) await clear(name);
    await box.ok(cloneWords(turn));
    wrong.push(...(await judgeClones(vm, "base", names)), ...(await vm.judge()));
    const suspended = vm.cloneIn("c1", vm);
    suspended.count = 0;
    if (turn % 3 === 2) wrong.push(...(await killRename(suspended, random)));
    for (const name of names) await clear(name);
    point(`ram:kill clone:${turn}`, wrong);
  }
  const { status, stdout } = await box.vm(["verify", "--all"]);
  point("ram:verify clones:0", status === 0 ? [] : [stdout]);
}

/** Kills `rename` of a suspended VM; whatever its name is then, it resumes. */
async function killRename(vm: RamVm, random: () => number): Promise<string[]> {
  const { box } = vm;
  await vm.ok("suspend");
  const running = box.start(["-d", vm.clone!, "rename", "renamed"]);
  await Bun.sleep(random() * 300);
  running.kill("SIGKILL");
  await running.done;
  const found = ["c1", "renamed"].filter((name) => existsSync(join(box.top, name, ".work")));
  if (found.length !== 1) return [`after the rename it is in ${found.join(" and ") || "no directory"}`];
  const renamed = vm.cloneIn(found[0]!, vm);
  await renamed.run();
  const wrong = await renamed.judge();
  await renamed.ok("stop", "--force");
  if (found[0] !== "c1") await renamed.ok("rename", "c1");
  return wrong;
}
