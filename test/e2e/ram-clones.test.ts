/** Clones of a snapshot with RAM that run at once, with real qemu. Their files: test/commands/ram-clones.test.ts. */
import { expect, test } from "bun:test";
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { until } from "./harness.ts";
import { endClones, judgeClones, RAM_BACKUP, sweepRamClones } from "./ram-faults.ts";
import { RamVm } from "./ram-vm.ts";
import { expectError, seed, sha256, suite, testInTurn } from "./tools.ts";

suite("clones of a snapshot with RAM", () => {
  test("linked ones go on with its number, share its RAM, and differ afterwards", async () => {
    using vm = await RamVm.make();
    const { box } = vm;
    await vm.run();
    await vm.booted();
    await box.ok([...RAM_BACKUP, "S0"]);
    const ram = box.path("backups/S0/state.ram");
    const sum = sha256(ram);
    const { stderr } = await box.ok(["clone", "--linked", "--count=2", "S0", "../web", "--run"]);
    expect(stderr).toContain("still has the host name");
    expect(stderr).toContain("no guest agent answers");
    expect(await judgeClones(vm, "S0", ["web1", "web2"])).toEqual([]);
    expect(await vm.judge()).toEqual([]);
    const clones = ["web1", "web2"].map((name) => vm.cloneIn(name, vm));
    expect(sha256(ram)).toBe(sum);
    for (const clone of clones) {
      const maps = readFileSync(`/proc/${await pidOf(clone)}/maps`, "utf8");
      const shared = maps.split("\n").filter((line) => line.endsWith(realpathSync(ram)));
      expect(shared.map((line) => line.split(/ +/)[1])).toEqual(["rw-p"]);
    }
    expectError(
      await box.vm(["-d", clones[1]!.clone!, "suspend"]),
      69,
      /mapped from the snapshot that the VM was cloned from/,
    );
    expectError(await box.vm(["-d", clones[1]!.clone!, "backup", "--ram"]), 75, /mapped from the snapshot/);
    expectError(await box.vm(["snapshots", "rm", "S0"]), 75, /web2 build on S0/);
    // Each writes to RAM and to a disk of its own.
    await clones[0]!.ok("pause");
    const { count } = await clones[1]!.ask();
    await until("further records", async () => (await clones[1]!.ask()).count > count + 2);
    await clones[0]!.ok("resume");
    expect(await endClones(vm, ["web1", "web2"])).toEqual([]);
    const [first, second] = [await clones[0]!.record(), await clones[1]!.record()];
    expect(first.count).not.toBe(second.count);
    expect(sha256(ram)).toBe(sum);
    expect(existsSync(join(clones[0]!.work, ".vm-resumed"))).toBe(false);
  });

  test("a full one needs nothing of the original, and can be suspended; its reset card has a MAC address of its own", async () => {
    using vm = await RamVm.make();
    const { box } = vm;
    await vm.run();
    await vm.booted();
    await box.ok(["backup", "--ram", "--format=gz", "S0"]);
    await box.ok(["clone", "LAST", "../web", "--run"]);
    const clone = vm.cloneIn("web", vm);
    expect(await judgeClones(vm, "S0", ["web"])).toEqual([]);
    await box.ok(["stop", "--force"]);
    await box.ok(["snapshots", "rm", "S0"]);
    clone.number = vm.number;
    clone.count = (await clone.ask()).count;
    await clone.ok("suspend");
    await clone.run();
    expect(await clone.judge()).toEqual([]);
    const { nics } = JSON.parse((await clone.ok("status", "--json")).stdout);
    expect(await macOf(clone)).not.toBe(nics[0].mac);
    await askMonitor(clone, "system_reset");
    await until("the card's own address", async () => (await macOf(clone)) === nics[0].mac);
    await clone.ok("stop", "--force");
  });

  testInTurn(1, 4)("kill -9 of clone --run: complete clones or none, each resumed once", async () => {
    const wrong: string[] = [];
    const point = (name: string, found: readonly string[]): void =>
      void wrong.push(...found.map((text) => `${name}: ${text}`));
    await sweepRamClones({ seed, point }, { rounds: 0, kills: 2 });
    expect(wrong).toEqual([]);
  });
});

const pidOf = async (vm: RamVm): Promise<number> =>
  (JSON.parse((await vm.ok("status", "--json")).stdout) as { pid: number }).pid;

const macOf = async (vm: RamVm): Promise<string> =>
  (await askMonitor<{ "main-mac": string }[]>(vm, "query-rx-filter"))[0]!["main-mac"];

/** Runs a command that the program does not use. */
async function askMonitor<T = unknown>(vm: RamVm, execute: string): Promise<T> {
  const reply = Promise.withResolvers<T>();
  let text = "";
  const socket = await Bun.connect({
    unix: join(vm.work, "qmp.sock"),
    socket: {
      data: (_socket, bytes) => {
        text += bytes.toString();
        const line = text.split("\n").find((one) => one.includes('"id": "asked"'));
        if (line !== undefined) reply.resolve((JSON.parse(line) as { return: T }).return);
      },
    },
  });
  socket.write(`{"execute": "qmp_capabilities"}\n{"execute": "${execute}", "id": "asked"}\n`);
  try {
    return await reply.promise;
  } finally {
    socket.end();
  }
}
