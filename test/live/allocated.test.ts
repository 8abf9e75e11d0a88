import { afterEach, beforeEach, expect, test } from "bun:test";
import { recordAllocated } from "../../src/live/allocated.ts";
import type { OpenDisk } from "../../src/live/disk-source.ts";
import { QmpClient } from "../../src/qmp/client.ts";
import { QmpDisconnect } from "../../src/qmp/errors.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { FakeDisks } from "./fake-disks.ts";

let temp: Temp;
let qemu: FakeDisks;
let qmp: QmpClient;
beforeEach(async () => {
  temp = new Temp();
  qemu = new FakeDisks(temp.path("qmp.sock"), ["disk0", "disk1"]);
  qmp = await QmpClient.connect(temp.path("qmp.sock"));
});
afterEach(() => {
  qmp.close();
  qemu[Symbol.dispose]();
  temp[Symbol.dispose]();
});

const DISKS: OpenDisk[] = [0, 1].map((index) => ({
  name: `disk-${index}.img`,
  node: `disk${index}`,
  virtualBytes: 1 << 20,
  bitmaps: [],
}));

test("a job for each disk discards data; what it has copied is added to what it has not", async () => {
  qemu.jobs = { "vm-scan-disk0": { looks: 1000 }, "vm-scan-disk1": { looks: 0 } };
  await recordAllocated(qmp, DISKS);
  expect(qemu.argsOf("blockdev-add")[0]).toMatchObject({ driver: "null-co", size: 1 << 20 });
  expect(qemu.argsOf("blockdev-backup")[0]).toMatchObject({
    device: "disk0",
    target: "vm-scan-disk0",
    sync: "top",
    bitmap: "vm-allocated",
    "bitmap-mode": "always",
    speed: 1,
  });
  expect(qemu.argsOf("block-job-cancel")).toEqual([{ device: "vm-copy-scan-0", force: true }]);
  expect(qemu.argsOf("block-dirty-bitmap-merge")).toEqual(
    ["disk0", "disk1"].map((node) => ({
      node,
      target: "vm-allocated",
      bitmaps: [{ node: `vm-scan-${node}`, name: "vm-allocated" }],
    })),
  );
  expect([...qemu.nodes.keys()]).toEqual(["disk0", "disk1"]);
});

test("a job is cancelled when its total no longer shrinks", async () => {
  qemu.jobs = { "vm-scan-disk0": { looks: 1000, totals: [500, 400, 300, 300, 300] } };
  await recordAllocated(qmp, DISKS.slice(0, 1));
  const queries = qemu.requests.map(({ execute }) => execute);
  const until = queries.slice(0, queries.indexOf("block-job-cancel"));
  // The last query is that of the cancellation.
  expect(until.filter((name) => name === "query-jobs")).toHaveLength(5);
});

test("a qemu that exits meanwhile ends the waiting", async () => {
  qemu.jobs = {
    "vm-scan-disk0": { looks: 1000, totals: Array.from({ length: 100 }, (_, index) => 900 - index) },
  };
  const failure = failureOf(() => recordAllocated(qmp, DISKS.slice(0, 1)));
  await Bun.sleep(50);
  qemu.die();
  expect(await failure).toBeInstanceOf(QmpDisconnect);
});
