/** Snapshots of a disk of 1 TiB that has 1 MiB of data: holes are neither read nor stored. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { isSnapshotBitmap } from "../../src/snapshot/make/plan.ts";
import { listBlockNodes } from "../../src/qmp/block.ts";
import { QmpClient } from "../../src/qmp/client.ts";
import { until, type Sandbox } from "./harness.ts";
import { DISK, manifest, run, write } from "./images.ts";
import { allocated, configure, smallSandbox, suite } from "./tools.ts";

const K = 1 << 10;
const M = 1 << 20;
const G = 2 ** 30;
/** The data, an L2 table of 64 KiB for each of its places, and other metadata. */
const ROOM = 2.5 * M;

/** Four places with data, all over the disk. */
const PLACES = [0, 256, 512, 1000].map((place) => place * G);

async function sparse(): Promise<Sandbox> {
  const box = smallSandbox();
  configure(box, "MEMORY=64M\nPORT=\nDISKS=(VIRT=1T)\nSNAPSHOT_FORMAT=qcow2\n");
  await box.ok(["create", "G"]);
  await write(box, ...PLACES.map((place, index) => `write -P ${index + 1} ${place} 256k`));
  return box;
}

const disk = (box: Sandbox): string => join(box.work, DISK);
const image = (box: Sandbox, name: string): string => box.path("backups", name, "disk-0.qcow2");

/** Compares contents: fails if they differ. */
const expectSame = (one: string, other: string): Promise<unknown> =>
  run(["qemu-img", "compare", "-q", "-U", "-f", "qcow2", "-F", "qcow2", one, other]);

function expectSmall(box: Sandbox, ...snapshots: string[]): void {
  for (const name of snapshots) {
    const { file } = manifest(box, name).files[0];
    expect(allocated(box.path("backups", name, file))).toBeLessThan(ROOM);
  }
  expect(allocated(disk(box))).toBeLessThan(ROOM);
}

async function rangesOf(box: Sandbox, from: string, to: string): Promise<unknown> {
  return JSON.parse((await box.ok(["snapshots", "diff", from, to, "--json"])).stdout).disks[0].ranges;
}

suite(
  "a disk of 1 TiB with 1 MiB of data",
  () => {
    test("off: snapshots, verify --deep, diff, restores and merges", async () => {
      using box = await sparse();
      await box.ok(["backup", "F"]);
      await write(box, `write -P 9 ${300 * G} 64k`, `write -z ${PLACES[1]} 64k`);
      await box.ok(["backup", "I"]);
      await write(box, `write -P 9 ${700 * G} 64k`);
      await box.ok(["@backup", "I2", "@backup", "--full", "F2", "@backup", "--format=gz", "Z"]);
      expectSmall(box, "F", "I", "I2", "F2", "Z");
      await box.ok(["verify", "--deep", "--all"]);
      const changes = [
        [PLACES[1], 64 * K],
        [300 * G, 64 * K],
        [700 * G, 64 * K],
      ];
      expect(await rangesOf(box, "F", "I2")).toEqual(changes);
      // Without a common backing file: all areas with data are compared, in either direction.
      expect(await rangesOf(box, "F", "F2")).toEqual(changes);
      expect(await rangesOf(box, "Z", "F")).toEqual(changes);
      expect(await rangesOf(box, "I2", "F2")).toEqual([]);
      for (const words of [["I2", "--copy"], ["Z"], ["F2", "--copy"]]) {
        await box.ok(["restore", ...words]);
        await expectSame(disk(box), image(box, "F2"));
        expectSmall(box, "F2");
      }
      await box.ok(["snapshots", "rm", "--merge", "I", "F"]);
      await expectSame(disk(box), image(box, "I2"));
      expectSmall(box, "I2");
    });

    test("running: full snapshots, standalone and restored, leave nothing in qemu", async () => {
      using box = await sparse();
      for (const suffix of ["alone", "restored"]) {
        await box.ok(["run", "--detach"]);
        await box.ok(["@backup", "--full", `F-${suffix}`, "@backup", "--format=gz", `Z-${suffix}`]);
        const qmp = await QmpClient.connect(join(box.work, "qmp.sock"));
        const nodes = await listBlockNodes(qmp);
        qmp.close();
        expect(nodes.map(({ node }) => node).filter((node) => node.startsWith("vm-"))).toEqual([]);
        const bitmaps = nodes.flatMap((node) => node.bitmaps.map(({ name }) => name));
        expect(bitmaps.filter((name) => !isSnapshotBitmap(name))).toEqual([]);
        await box.ok(["stop", "--force"]);
        await expectSame(disk(box), image(box, `F-${suffix}`));
        expectSmall(box, `F-${suffix}`, `Z-${suffix}`);
        await box.ok(["restore", "F-alone"]);
      }
    });

    test("a guest that writes to holes meanwhile: all that it wrote before the point in time, and nothing later", async () => {
      using box = await sparse();
      await box.ok(["run", "--detach"]);
      const before = 64 * M;
      const placeOf = (index: number): number => before + index * 128 * K;
      const qmp = await QmpClient.connect(join(box.work, "qmp.sock"));
      let count = 0;
      const stop = new AbortController();
      const writer = (async () => {
        for (; !stop.signal.aborted; count++)
          await qmp.executeUntyped("human-monitor-command", {
            "command-line": `qemu-io -d /machine/peripheral/disk0-dev/virtio-backend "write -P 7 ${placeOf(count)} 64k"`,
          });
      })();
      await until("the first writes", () => count > 3);
      await box.ok(["backup", "--full", "F"]);
      stop.abort();
      await writer;
      qmp.close();
      await box.ok(["stop", "--force"]);
      const { stdout } = await run(["qemu-img", "map", "-f", "qcow2", "--output=json", image(box, "F")]);
      const map = JSON.parse(stdout) as { start: number; length: number; data: boolean }[];
      const holds = (at: number): boolean =>
        map.some(({ start, length, data }) => data && start <= at && at < start + length);
      const written = Array.from({ length: count }, (_, index) => holds(placeOf(index)));
      const first = written.indexOf(false);
      expect(first).toBeGreaterThan(3);
      expect(written.slice(first)).not.toContain(true);
    });
  },
  ["qemu-io"],
);
