/** `snapshots diff`: the areas in which disks differ. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import type { Sandbox } from "./harness.ts";
import { DISK, filled, run, write } from "./images.ts";
import { expectError, names, suite } from "./tools.ts";

const M = 1 << 20;

async function diff(box: Sandbox, from: string, to: string): Promise<[number, number][]> {
  const { stdout } = await box.ok(["snapshots", "diff", from, to, "--json"]);
  const result = JSON.parse(stdout);
  expect(result).toMatchObject({ from, to, disks: [{ name: "disk-0.img", toBytes: 64 * M }] });
  return result.disks[0].ranges;
}

suite("snapshots diff", () => {
  test("along a chain, across branches and formats: by the guest-visible contents", async () => {
    using box = await filled();
    await box.ok(["backup", "A"]);
    // Writing the same data again is no change.
    await write(box, "write -P 2 8M 1M", "write -P 1 12M 1M", "discard 15M 1M");
    await box.ok(["@backup", "B"]);
    await write(box, "write -P 3 50M 64k");
    await box.ok(["@backup", "C", "@restore", "A"]);
    await write(box, "write -P 4 9M 1M");
    await box.ok(["@backup", "side", "@backup", "packed", "--format=gz"]);

    const changes: [number, number][] = [
      [8 * M, M],
      [15 * M, M],
    ];
    expect(await diff(box, "A", "B")).toEqual(changes);
    expect(await diff(box, "B", "A")).toEqual(changes);
    expect(await diff(box, "A", "C")).toEqual([...changes, [50 * M, 65_536]]);
    expect(await diff(box, "A", "A")).toEqual([]);
    const both: [number, number][] = [
      [8 * M, 2 * M],
      [15 * M, M],
    ];
    expect(await diff(box, "side", "B")).toEqual(both);
    expect(await diff(box, "B", "packed")).toEqual(both);
    expect(await diff(box, "packed", "side")).toEqual([]);
    const { stdout } = await box.ok(["snapshots", "diff", "A", "LAST"]);
    expect(stdout).toMatch(/^disk-0\.img +1\.0 MiB +64 MiB +1\b/m);
    expect(names(box.tmp).filter((name) => !box.work.endsWith(name))).toEqual([]);
  });

  test("a grown disk; snapshots that cannot be compared", async () => {
    using box = await filled();
    await box.ok(["backup", "A"]);
    await run(["qemu-img", "resize", "-q", "-f", "qcow2", join(box.work, DISK), "80M"]);
    await write(box, "write -P 2 8M 1M", "write -P 2 70M 1M");
    await box.ok(["backup", "B"]);
    const { disks } = JSON.parse((await box.ok(["snapshots", "diff", "A", "B", "--json"])).stdout);
    expect(disks).toMatchObject([
      { name: DISK, fromBytes: 64 * M, toBytes: 80 * M, changedBytes: M, ranges: [[8 * M, M]] },
    ]);
    expect(JSON.parse((await box.ok(["snapshots", "diff", "B", "A", "--json"])).stdout).disks).toMatchObject([
      { name: DISK, fromBytes: 80 * M, toBytes: 64 * M, changedBytes: M, ranges: [[8 * M, M]] },
    ]);
    expect((await box.ok(["snapshots", "diff", "A", "B"])).stdout).toContain("was 64 MiB");
    expectError(await box.vm(["snapshots", "diff", "A"]), 64, /takes two names/);
    expectError(await box.vm(["snapshots", "diff", "A", "X"]), 66, /no such snapshot: X/);
    await run(["truncate", "-s", "-1", box.path("backups/A/disk-0.qcow2")]);
    expectError(await box.vm(["snapshots", "diff", "A", "B"]), 74, /bytes instead of/);
  });
});
