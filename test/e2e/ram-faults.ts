/** Snapshots with RAM of one guest, restored and resumed, and killed at any time; each must be one point in time. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { QmpClient } from "../../src/qmp/client.ts";
import type { RamRecord } from "../guests/ram.ts";
import { seededRandom } from "./faults-lab.ts";
import { RamVm } from "./ram-vm.ts";
import type { SuspendSweep } from "./suspend-faults.ts";

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
  if (await Bun.file(ram).exists()) {
    const saved = readRecordInRam(ram);
    if (saved.number !== record.number || saved.count !== record.count)
      wrong.push(`${name}: ${saved.count} in RAM, ${record.count} on the disk`);
  }
  vm.number = number;
  vm.count = record.count;
  await vm.run();
  return [...wrong, ...(await vm.judge())];
}

const BACKUP = ["backup", "--ram", "--format=qcow2"];

/** Makes, restores and resumes `rounds` snapshots, then kills `kills` of each command. */
export async function sweepRamSnapshots(
  { seed, point, parent }: SuspendSweep,
  { rounds, kills }: { rounds: number; kills: number },
): Promise<void> {
  const random = seededRandom(seed);
  using vm = await RamVm.make("", parent);
  const { box } = vm;
  await vm.run();
  await vm.booted();
  const { number } = vm;
  const begun = performance.now();
  await box.ok([...BACKUP, "base"]);
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
    await kill(BACKUP);
    await box.ok([...BACKUP, `after${turn}`]);
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
