import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { cleanUpLive, removeFleecing } from "../../src/live/clean-up.ts";
import type { OpenDisk } from "../../src/live/disk-source.ts";
import { beginFleecing, explainLoss, type FleecingRequest } from "../../src/live/fleece.ts";
import { addingBitmap } from "../../src/qmp/block.ts";
import { QmpClient } from "../../src/qmp/client.ts";
import { QmpError, QmpTimeout } from "../../src/qmp/errors.ts";
import { VmError } from "../../src/lib/errors.ts";
import { signalError } from "../../src/process/signals.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { FakeAgent } from "../qmp/fake-agent.ts";
import { FakeDisks } from "./fake-disks.ts";

let temp: Temp;
let qemu: FakeDisks;
let qmp: QmpClient;
beforeEach(async () => {
  temp = new Temp();
  temp.write("disk-0.img", "");
  temp.write("efivars", "variables");
  temp.directory("staged");
  qemu = new FakeDisks(temp.path("qmp.sock"), ["disk0"]);
  qmp = await QmpClient.connect(temp.path("qmp.sock"));
});
afterEach(() => {
  qmp.close();
  qemu[Symbol.dispose]();
  temp[Symbol.dispose]();
});

const DISK: OpenDisk = { name: "disk-0.img", node: "disk0", virtualBytes: 1 << 20, bitmaps: [] };
const begin = (more: Partial<FleecingRequest> = {}) =>
  beginFleecing({
    qmp,
    disks: [DISK],
    workdir: temp.top,
    directory: temp.path("staged"),
    actions: [addingBitmap("disk0", "b")],
    files: [temp.path("efivars")],
    full: false,
    ...more,
  });

const drive = (): unknown => qemu.drives.get("/machine/peripheral/disk0-dev");

describe("the point in time of a running guest", () => {
  test("is taken while it is paused, with bitmaps; small files are copied", async () => {
    const { frozen, refused } = await begin();
    expect([frozen, refused]).toEqual([false, undefined]);
    expect(qemu.commands).toEqual([
      "blockdev-add",
      "blockdev-add",
      "stop",
      "transaction",
      "qom-set",
      "cont",
      "blockdev-add",
    ]);
    expect([...qemu.nodes.keys()]).toEqual(["disk0", "vm-fleece-disk0", "vm-cbw-disk0", "vm-access-disk0"]);
    expect(drive()).toBe("vm-cbw-disk0");
    expect(qemu.status).toBe("running");
    expect(await Bun.file(temp.path("staged", "efivars")).text()).toBe("variables");
  });

  test("has the small files as they are then: a later change is not in the copies", async () => {
    const path = temp.path("efivars");
    // As the guest writes when it runs again.
    Object.defineProperty(qemu.refused, "cont", { get: () => void writeFileSync(path, "later") });
    await begin();
    expect(await Bun.file(path).text()).toBe("later");
    expect(await Bun.file(temp.path("staged", "efivars")).text()).toBe("variables");
  });

  test("fails if a small file cannot be copied, and the guest runs", async () => {
    await expect(begin({ files: [temp.path("gone")] })).rejects.toMatchObject({ code: "ENOENT" });
    expect(qemu.status).toBe("running");
    expect([...qemu.nodes.keys()]).toEqual(["disk0"]);
  });

  test("comes after the search for allocated clusters, if these are to be copied", async () => {
    await begin({ full: true });
    expect(qemu.commands.slice(0, 4)).toEqual([
      "blockdev-add",
      "block-dirty-bitmap-add",
      "block-dirty-bitmap-add",
      "blockdev-backup",
    ]);
    expect(qemu.commands.indexOf("block-dirty-bitmap-merge")).toBeLessThan(qemu.commands.indexOf("stop"));
  });

  test("leaves nothing when it is closed", async () => {
    const { close } = await begin();
    await close();
    expect([...qemu.nodes.keys()]).toEqual(["disk0"]);
    expect(drive()).toBe("disk0");
    expect(existsSync(temp.path("staged", "fleece-disk-0.img"))).toBe(false);
  });

  test("is closed without commands to a qemu that has exited", async () => {
    const { close } = await begin();
    qemu.die();
    await close();
    expect(existsSync(temp.path("staged", "fleece-disk-0.img"))).toBe(false);
  });

  test("without the bitmaps that qemu rejects: its reason", async () => {
    qemu.refused = { transaction: "Bitmap already exists: b" };
    const { refused } = await begin();
    expect(refused).toBeInstanceOf(QmpError);
    expect(qemu.status).toBe("running");
    expect(drive()).toBe("vm-cbw-disk0");
  });

  test("cleans up after a failure, and the guest runs", async () => {
    qemu.refused = { "qom-set": "no" };
    expect(await failureOf(() => begin())).toBeInstanceOf(QmpError);
    expect([...qemu.nodes.keys()]).toEqual(["disk0"]);
    expect(qemu.status).toBe("running");
  });
});

const saving = (save: () => unknown) => begin({ saveMachine: async () => void (await save()) });

describe("with the state of the machine", () => {
  test("it is saved while the guest is paused, and the filters come after it", async () => {
    let before: string[] = [];
    await saving(() => void (before = [...qemu.commands]));
    expect(before).toEqual(["blockdev-add", "stop", "transaction"]);
    expect(qemu.commands.slice(before.length)).toEqual([
      "blockdev-add",
      "blockdev-add",
      "qom-set",
      "cont",
      "blockdev-del",
      "blockdev-add",
    ]);
    expect([...qemu.nodes.keys()]).toEqual(["disk0", "vm-fleece-disk0", "vm-cbw-disk0", "vm-access-disk0"]);
    expect(await Bun.file(temp.path("staged", "efivars")).text()).toBe("variables");
    expect(qemu.status).toBe("running");
  });

  test("the filesystems are not frozen: they would be in the saved RAM", async () => {
    qemu.agent = true;
    using agent = new FakeAgent(temp.path("agent.sock"), () => 1);
    await saving(() => {});
    expect(agent.requests).toEqual([]);
  });

  test("the guest runs again after a failure", async () => {
    const failed = new Error("no space");
    await expect(saving(() => Promise.reject(failed))).rejects.toBe(failed);
    expect(qemu.status).toBe("running");
    expect([...qemu.nodes.keys()]).toEqual(["disk0"]);
    expect(drive()).toBe("disk0");
  });
});

test("a paused guest stays paused", async () => {
  qemu.status = "paused";
  const { close } = await begin({ actions: [] });
  expect(qemu.commands).toEqual(["blockdev-add", "blockdev-add", "qom-set", "blockdev-add"]);
  expect(drive()).toBe("vm-held-disk0");
  await close();
  expect(qemu.status).toBe("paused");
  expect([...qemu.nodes.keys()]).toEqual(["disk0"]);
});

describe("a guest with an agent", () => {
  beforeEach(() => void (qemu.agent = true));

  test("has its filesystems frozen then", async () => {
    using agent = new FakeAgent(temp.path("agent.sock"), (command) =>
      command === "guest-fsfreeze-freeze" ? 2 : command,
    );
    expect((await begin()).frozen).toBe(true);
    expect(agent.requests).toEqual(["guest-sync-delimited", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"]);
  });

  test("has no filesystems to freeze: as without an agent", async () => {
    using _agent = new FakeAgent(temp.path("agent.sock"), (command) =>
      command === "guest-fsfreeze-freeze" ? 0 : command,
    );
    expect((await begin()).frozen).toBe(false);
  });

  test("fails meanwhile: is thawed nevertheless", async () => {
    using agent = new FakeAgent(temp.path("agent.sock"), () => 1);
    qemu.refused = { "qom-set": "no" };
    await failureOf(() => begin());
    expect(agent.requests.at(-1)).toBe("guest-fsfreeze-thaw");
  });

  test.each([
    ["frozen", true],
    ["thawed", false],
  ])("state %s left by a killed command: thawed: %p", async (status, thawed) => {
    using agent = new FakeAgent(temp.path("agent.sock"), () => status);
    await cleanUpLive(qmp, temp.top);
    expect(agent.requests.includes("guest-fsfreeze-thaw")).toBe(thawed);
  });
});

describe("after a killed command", () => {
  test.each<[string, string[], string, string[], string]>([
    ["nothing", [], "running", [], "running"],
    [
      "filters before the point in time: the guest runs",
      ["vm-fleece-disk0", "vm-cbw-disk0"],
      "running",
      ["blockdev-del", "blockdev-del"],
      "running",
    ],
    [
      "a paused guest",
      ["vm-fleece-disk0", "vm-cbw-disk0"],
      "paused",
      ["blockdev-del", "blockdev-del", "cont"],
      "running",
    ],
    [
      "a guest that a user paused",
      ["vm-fleece-disk0", "vm-held-disk0"],
      "paused",
      ["blockdev-del", "blockdev-del"],
      "paused",
    ],
    [
      "a guest that was paused later",
      ["vm-fleece-disk0", "vm-cbw-disk0", "vm-access-disk0", "vm-target-disk-0"],
      "paused",
      ["blockdev-del", "blockdev-del", "blockdev-del", "blockdev-del"],
      "paused",
    ],
  ])("%s", async (_what, nodes, status, commands, after) => {
    for (const node of nodes) qemu.nodes.set(node, {});
    qemu.status = status;
    await removeFleecing(qmp);
    expect(qemu.commands).toEqual(commands);
    expect([...qemu.nodes.keys()]).toEqual(["disk0"]);
    expect(qemu.status).toBe(after);
  });

  test.each<[status: string, commands: string[]]>([
    ["running", ["blockdev-del"]],
    ["paused", ["cont", "blockdev-del"]],
    ["postmigrate", ["cont", "blockdev-del"]],
    ["finish-migrate", ["migrate_cancel", "cont", "blockdev-del"]],
  ])("a guest that was paused for its RAM, %s: runs", async (status, commands) => {
    qemu.nodes.set("vm-paused", {});
    qemu.status = status;
    await removeFleecing(qmp);
    expect(qemu.commands).toEqual(commands);
    expect(qemu.status).toBe("running");
    expect([...qemu.nodes.keys()]).toEqual(["disk0"]);
  });

  test("a job that finds allocated clusters, and its bitmap", async () => {
    qemu.nodes.set("disk0", { bitmaps: ["vm-0123456789abcdef", "vm-allocated"] });
    qemu.nodes.set("vm-scan-disk0", {});
    qemu.leave({ id: "vm-copy-scan-0", looks: 1000 });
    await removeFleecing(qmp);
    expect(qemu.commands).toEqual([
      "block-job-cancel",
      "job-dismiss",
      "block-dirty-bitmap-remove",
      "blockdev-del",
    ]);
    expect(qemu.argsOf("block-dirty-bitmap-remove")).toEqual([{ node: "disk0", name: "vm-allocated" }]);
    expect([...qemu.nodes.keys()]).toEqual(["disk0"]);
  });

  test("a filter before the guest's disk: the disk is put back first", async () => {
    qemu.nodes.set("vm-cbw-disk0", {});
    qemu.drives.set("/machine/peripheral/disk0-dev", "vm-cbw-disk0");
    await removeFleecing(qmp);
    expect(qemu.commands).toEqual(["qom-set", "blockdev-del"]);
    expect(drive()).toBe("disk0");
  });
});

const explain = (error: unknown): Promise<unknown> => explainLoss(error, qmp, "/b");

describe("a copy that fails", () => {
  test("as copy-before-write has disabled reads: no space for its data", async () => {
    const cause = new VmError("io", "cannot copy the disks: Permission denied", { reason: "denied" });
    expect(await explain(cause)).toMatchObject({ exitCode: 73, cause });
  });

  test.each([
    ["another reason of qemu's", new VmError("io", "cannot copy the disks: Input/output error")],
    ["a signal", signalError("SIGTERM")],
    ["a qemu that hangs", new QmpTimeout("late")],
    ["an internal error", new TypeError("x")],
  ])("passes on %s", async (_why, error) => {
    expect(await explain(error)).toBe(error);
  });

  test("as the guest shut down: 74, with that reason", async () => {
    qemu.die();
    await qmp.closed;
    expect(await explain(new VmError("io", "cannot copy the disks: Input/output error"))).toMatchObject({
      exitCode: 74,
      message: "cannot copy the disks: qemu exited",
    });
  });
});
