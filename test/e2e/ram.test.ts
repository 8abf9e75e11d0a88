/** Snapshots with the RAM of a running guest, with real qemu. Their files: test/commands/ram.test.ts. */
import { expect, test } from "bun:test";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { QmpClient } from "../../src/qmp/client.ts";
import { until } from "./harness.ts";
import { RamVm } from "./ram-vm.ts";
import { sampled, sha256, suite, testInTurn } from "./tools.ts";

/** The guest's record in the RAM of a snapshot of the format qcow2 (test/guests/ram.ts). */
function recordInRam(path: string): { number: number; count: number } {
  const bytes = readFileSync(path).subarray(0x8000, 0x8008);
  return { number: bytes.readUInt32LE(0), count: bytes.readUInt32LE(4) };
}

/** After a kill of the backup: a guest that runs on, and a qemu without anything of the backup. */
async function judgeRunning(vm: RamVm): Promise<string[]> {
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

suite("a snapshot with RAM", () => {
  test("RAM and disk are of one point in time; each restore resumes there, once", async () => {
    using vm = await RamVm.make();
    const { box } = vm;
    await vm.run();
    await vm.booted();
    for (const format of ["qcow2", "qcow2", "gz"])
      expect((await box.ok(["backup", "--ram", `--format=${format}`])).stderr).toContain("with RAM");
    expect(await judgeRunning(vm)).toEqual([]);
    const { number, count } = vm;
    await box.ok(["stop", "--force"]);
    const sum = sha256(box.path("backups/S0/state.ram"));

    const counts: number[] = [];
    for (const name of ["S0", "S1", "S2", "S0"]) {
      await box.ok(["restore", name]);
      const record = await vm.record();
      if (name !== "S2") expect(recordInRam(box.path(`backups/${name}/state.ram`))).toEqual(record);
      vm.count = record.count;
      counts.push(record.count);
      await vm.run();
      expect(await vm.judge()).toEqual([]);
      await until("further records", async () => (await vm.ask()).count > record.count + 2);
      await box.ok(["stop", "--force"]);
    }
    expect(counts.slice(0, 3)).toEqual(counts.slice(0, 3).toSorted((a, b) => a - b));
    expect(counts[3]).toBe(counts[0]!);
    expect(counts[2]).toBeLessThanOrEqual(count);
    expect(vm.number).toBe(number);

    // Only once: what the guest wrote since is on the disk.
    await vm.run();
    expect((await vm.ask()).number).not.toBe(number);
    await box.ok(["stop", "--force"]);
    expect(sha256(box.path("backups/S0/state.ram"))).toBe(sum);
    await box.ok(["restore", "S1", "--no-ram"]);
    await vm.run();
    expect((await vm.ask()).number).not.toBe(number);
    await box.ok(["stop", "--force"]);

    const { stdout } = await box.ok(["verify", "--boot", "S1"]);
    expect(stdout).toContain("S1: good, qcow2");
    expect(stdout).toContain("resumes (runs)");
  });

  testInTurn(1)(
    "kill -9 of backup --ram and restore: the old state is intact, and the next command works",
    async () => {
      using vm = await RamVm.make();
      const { box } = vm;
      await vm.run();
      await vm.booted();
      const started = performance.now();
      await box.ok(["backup", "--ram", "--format=qcow2", "first"]);
      const took = performance.now() - started;
      const wrong: string[] = [];
      for (const part of sampled([0.5, 0.3, 0.7, 0.4, 0.6, 0.9], 1, 2)) {
        const killed = box.start(["backup", "--ram", "--format=qcow2"]);
        await Bun.sleep(took * part);
        process.kill(killed.pid, "SIGKILL");
        await killed.done;
        await box.ok(["backup", "--ram", "--format=qcow2"]);
        wrong.push(...(await judgeRunning(vm)).map((text) => `killed after ${part}: ${text}`));
      }
      expect(wrong).toEqual([]);
      const { number } = vm;
      await box.ok(["stop", "--force"]);
      await box.ok(["verify", "--all"]);
      const restored = box.start(["restore", "first"]);
      await Bun.sleep(took * 0.3);
      process.kill(restored.pid, "SIGKILL");
      await restored.done;
      await box.ok(["restore", "first"]);
      vm.number = number;
      vm.count = (await vm.record()).count;
      await vm.run();
      expect(await vm.judge()).toEqual([]);
      await box.ok(["stop", "--force"]);
      expect(statSync(box.path("backups/first/state.ram")).mode & 0o777).toBe(0o400);
    },
  );
});
