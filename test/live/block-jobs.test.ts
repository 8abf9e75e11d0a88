import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { copyDisks, cancelAllJobs, type CopyRequest } from "../../src/live/block-jobs.ts";
import { QmpClient } from "../../src/qmp/client.ts";
import { QmpDisconnect, QmpError } from "../../src/qmp/errors.ts";
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

const request = (disk: number, more: Partial<CopyRequest> = {}): CopyRequest => ({
  from: `disk${disk}`,
  to: `target${disk}`,
  only: "top",
  compress: true,
  gently: false,
  ...more,
});

describe("copyDisks", () => {
  test("starts a job for each disk, reports their progress, and leaves none", async () => {
    qemu.jobs = { target0: { looks: 1 } };
    const progress: number[][] = [];
    await copyDisks(qmp, [request(0), request(1)], (...bytes) => progress.push(bytes));
    expect(progress).toEqual([
      [140, 200],
      [200, 200],
    ]);
    expect(qemu.commands).toEqual(["blockdev-backup", "blockdev-backup", "job-dismiss", "job-dismiss"]);
  });

  test.each<[string, Partial<CopyRequest>, number, object]>([
    ["the top image", {}, 0, { sync: "top", compress: true }],
    ["not compressed", { compress: false }, 0, { sync: "top", compress: false }],
    [
      "the clusters of a bitmap, which is kept",
      { only: { bitmap: "b" } },
      0,
      { sync: "bitmap", bitmap: "b", "bitmap-mode": "never", compress: true },
    ],
    ["gently", { gently: true }, 0, { sync: "top", compress: true, "x-perf": { "max-workers": 4 } }],
    ["with a rate limit", {}, 1001, { sync: "top", compress: true, speed: 1001 }],
  ])("copies %s", async (_how, more, speed, args) => {
    await copyDisks(qmp, [request(0, more)], () => {}, speed);
    expect(qemu.argsOf("blockdev-backup")).toEqual([
      { "job-id": "vm-copy-0", device: "disk0", target: "target0", "auto-dismiss": false, ...args },
    ]);
  });

  test("divides the rate among the disks", async () => {
    await copyDisks(qmp, [request(0), request(1)], () => {}, 1001);
    expect(qemu.argsOf("blockdev-backup")).toMatchObject([{ speed: 501 }, { speed: 501 }]);
  });

  test.each([
    ["No space left on device", 73, "cannot copy the disks: no space left on device"],
    ["Input/output error", 74, "cannot copy the disks: Input/output error"],
  ])("a job that fails with %s: %d; the others are cancelled, none remains", async (words, code, message) => {
    qemu.jobs = { target0: { error: words }, target1: { looks: 1000 } };
    const error = await failureOf(() => copyDisks(qmp, [request(0), request(1)], () => {}));
    expect(error).toMatchObject({ exitCode: code, message });
    expect(qemu.argsOf("block-job-cancel")).toEqual([{ device: "vm-copy-1", force: true }]);
    expect(qemu.argsOf("job-dismiss")).toHaveLength(2);
  });

  test("a job that may not read: its error has the reason", async () => {
    qemu.jobs = { target0: { error: "Permission denied" } };
    const error = await failureOf(() => copyDisks(qmp, [request(0)], () => {}));
    expect(error.reason).toBe("denied");
  });

  test("a job that cannot be started: qemu's error; earlier ones are cancelled", async () => {
    qemu.refused = { "blockdev-backup": "Cannot find device=disk0" };
    const error = await failureOf(() => copyDisks(qmp, [request(0)], () => {}));
    expect(error).toBeInstanceOf(QmpError);
  });

  test("a qemu that exits meanwhile ends the waiting", async () => {
    qemu.jobs = { target0: { looks: 1000 } };
    const error = failureOf(() => copyDisks(qmp, [request(0)], () => qemu.die()));
    expect(await error).toBeInstanceOf(QmpDisconnect);
  });
});

test("cancelAllJobs ends those of an earlier command, and no others", async () => {
  qemu.leave({ id: "vm-copy-0", looks: 1000 });
  qemu.leave({ id: "vm-copy-1", looks: 0, error: "Input/output error" });
  qemu.leave({ id: "mirror", looks: 1000 });
  await cancelAllJobs(qmp);
  expect(qemu.argsOf("block-job-cancel")).toEqual([{ device: "vm-copy-0", force: true }]);
  expect(qemu.argsOf("job-dismiss")).toEqual([{ id: "vm-copy-1" }, { id: "vm-copy-0" }]);
});
