/** `suspend`, and `run` that resumes, with real qemu. */
import { expect, test } from "bun:test";
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { RamVm } from "./ram-vm.ts";
import { suite } from "./tools.ts";

suite("suspend", () => {
  test("a guest goes on where it was, twice, with its RAM and its disk of one point in time", async () => {
    using vm = await RamVm.make();
    const { box } = vm;
    await vm.run();
    await vm.booted();
    for (let turn = 0; turn < 2; turn++) {
      const { stderr } = await box.ok(["suspend"]);
      expect(stderr).toContain("suspended: ");
      expect(await box.leftovers()).toEqual([]);
      expect(JSON.parse((await box.ok(["status", "--json"])).stdout)).toMatchObject({ state: "suspended" });
      const record = await vm.record();
      expect(record.number).toBe(vm.number);
      expect(record.count).toBeGreaterThanOrEqual(vm.count);
      vm.count = record.count;
      await vm.run();
      expect(await vm.judge()).toEqual([]);
      expect(existsSync(join(box.work, ".vm-suspended"))).toBe(false);
      expect(statSync(join(box.work, ".vm-resumed/ram")).size).toBe(64 << 20);
    }
    await box.ok(["stop", "--force"]);
    expect(existsSync(join(box.work, ".vm-resumed"))).toBe(false);
  });
});
