import { expect } from "bun:test";
import { join } from "node:path";
import { compareDisks } from "../../src/snapshot/compare-disks.ts";
import { Temp } from "../fixtures/temp.ts";
import { testWith } from "../fixtures/needs.ts";

testWith("qemu-img", "qemu-io")("two disks are compared with progress, up to the end", async () => {
  using temp = new Temp();
  const [before, after] = ["a", "b"].map((name) => {
    const path = join(temp.top, `${name}.qcow2`);
    Bun.spawnSync(["qemu-img", "create", "-q", "-f", "qcow2", path, "8M"]);
    return { path, virtualBytes: 8 << 20, backing: [] };
  });
  Bun.spawnSync(["qemu-io", "-f", "qcow2", "-c", "write -q -P 7 1M 64k", after!.path]);
  const parts: number[] = [];
  const found = await compareDisks(
    before!,
    after!,
    join(temp.top, "scratch"),
    (part) => void parts.push(part),
  );
  expect(found).toEqual([[1 << 20, 64 << 10]]);
  expect(parts.at(-1)).toBe(1);
});
