import { describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { readOwnHeader } from "../../src/qemu/image-header.ts";
import { HANG, Refusal, type Behaviour } from "../fixtures/qemu/fake-qemu.ts";
import { until, type Sandbox } from "../fixtures/sandbox.ts";
import { seen, writeDisk, written } from "./snapshots.ts";

const manifest = (box: Sandbox, name: string): any => JSON.parse(box.read("backups", name, "manifest.json"));

const allocated = (path: string): number => statSync(path).blocks * 512;

/** Disk contents of a restored VM. */
async function restored(box: Sandbox, ...words: string[]): Promise<number[]> {
  await box.ok("restore", ...words);
  return seen(box);
}

describe("backup", () => {
  test("gz: stores disks, settings, checksums and a manifest with mode 0600, and points LAST to it", async () => {
    using box = await written();
    await box.ends(0, ["backup", "S0", "before the update"], "S0");
    expect(readdirSync(box.path("backups/S0")).toSorted()).toEqual(
      ["DESCRIPTION", "SHA256SUMS", "TS", "disk-0.img.gz", "guest.env", "manifest.json"].toSorted(),
    );
    expect(readlinkSync(box.path("backups/LAST"))).toBe("S0");
    expect(box.read("backups/S0/DESCRIPTION").trim()).toBe("before the update");
    expect(statSync(box.path("backups/S0")).mode & 0o777).toBe(0o700);
    expect(manifest(box, "S0")).toMatchObject({ format: "gz", consistency: "offline" });
    writeDisk(box, 1, 7);
    expect(await restored(box)).toEqual([1]);
  });

  test.each<[title: string, live: boolean]>([
    ["off", false],
    ["running", true],
  ])("qcow2, %s: the first is full, the next one incremental", async (_title, live) => {
    using box = await written("SNAPSHOT_FORMAT=qcow2\n");
    if (live) await box.running();
    await box.ok("backup");
    writeDisk(box, 1, 2);
    await box.ends(0, "backup", "S1");
    await box.ok("backup", "--full");
    expect(["S0", "S1", "S2"].map((name) => manifest(box, name).parent)).toEqual([
      undefined,
      "S0",
      undefined,
    ]);
    expect(manifest(box, "S1").consistency).toBe(live ? "crash-consistent" : "offline");
    expect(statSync(box.path("backups/S1/disk-0.qcow2")).mode & 0o777).toBe(0o400);
    if (live) await box.ok("stop");
    expect(await restored(box, "S0")).toEqual([1]);
    expect(await restored(box, "S1")).toEqual([1, 2]);
    expect(await restored(box, "S2", "--copy")).toEqual([1, 2]);
    await box.ends(0, "verify --all --deep");
  });

  test("of a restored disk, an overlay on its snapshot: incremental", async () => {
    using box = await written("SNAPSHOT_FORMAT=qcow2\n");
    await box.ok("@backup", "@restore");
    writeDisk(box, 2, 3);
    await box.ok("backup");
    expect(manifest(box, "S1").parent).toBe("S0");
    await box.ok("backup", "--format=gz");
    expect(await restored(box, "S2")).toEqual([1, 0, 3]);
    expect(await restored(box, "S1")).toEqual([1, 0, 3]);
  });

  test("limits a chain to SNAPSHOT_CHAIN", async () => {
    using box = await written("SNAPSHOT_FORMAT=qcow2\nSNAPSHOT_CHAIN=2\n");
    for (let count = 0; count < 3; count++) await box.ok("backup");
    expect(["S0", "S1", "S2"].map((name) => manifest(box, name).parent)).toEqual([
      undefined,
      "S0",
      undefined,
    ]);
  });

  test("removes unused bitmaps", async () => {
    using box = await written("SNAPSHOT_FORMAT=qcow2\n");
    for (let count = 0; count < 3; count++) await box.ok("backup");
    const info = Bun.spawnSync(["qemu-img", "info", "--output=json", join(box.work, "disk-0.img")]);
    const { bitmaps } = JSON.parse(info.stdout.toString())["format-specific"].data;
    expect(bitmaps.map((bitmap: { name: string }) => bitmap.name).toSorted()).toEqual(
      ["S1", "S2"].map((name) => `vm-${manifest(box, name).id}`).toSorted(),
    );
  });

  test.each<[line: string, status: number, printed: string]>([
    ["backup ../x", 64, "../x"],
    ["backup LAST", 64, "LAST"],
    ["backup --format=zip", 64, "gz"],
    ["backup --rate-limit=fast", 64, "--rate-limit"],
    ["backup --lock-timeout=x", 64, "--lock-timeout"],
    ["backup --keep-last=2", 64, "--prune"],
    ["backup --prune", 64, "--keep"],
    ["backup --push", 78, "SNAPSHOT_REPO"],
    ["backup S0", 73, "S0"],
    ["backup S9 --rate-limit=50M", 0, "S9"],
  ])("%s → %i", async (line, status, printed) => {
    using box = await written();
    await box.ok("backup", "S0");
    await box.ends(status, line, printed);
    expect(readdirSync(box.path("backups")).length).toBe(status === 0 ? 3 : 2);
  });

  test.each<[what: string, prepare: (box: Sandbox) => unknown, status: number, printed: string]>([
    ["no VM", (box) => rmSync(box.host, { recursive: true }) ?? mkdirSync(box.host), 66, "no VM"],
    ["no working files", (box) => box.ok("@backup", "@destroy"), 66, "restore"],
    ["missing disks", (box) => rmSync(join(box.work, "disk-0.img")), 74, "gone"],
    [
      "a disk that is not an image",
      (box) => writeFileSync(join(box.work, "disk-0.img"), "x"),
      74,
      "disk-0.img",
    ],
    [
      "a truncated disk",
      (box) => Bun.spawnSync(["truncate", "-s", "70000", join(box.work, "disk-0.img")]),
      74,
      "disk-0.img",
    ],
    ["UEFI variables cut off", (box) => writeFileSync(join(box.work, "efivars.bin"), "x"), 74, "efivars.bin"],
    ["pigz that fails", (box) => box.program("pigz", "exit 3"), 74, "pigz"],
    [
      "pigz without space",
      (box) => box.program("pigz", "echo 'write error: No space left on device' >&2; exit 1"),
      73,
      "space",
    ],
    ["no pigz", (box) => box.without("pigz"), 69, "pigz"],
  ])("fails with %s", async (_what, prepare, status, printed) => {
    using box = await written();
    await prepare(box);
    await box.ends(status, "backup NEW", printed);
    expect(existsSync(box.path("backups/NEW"))).toBe(false);
    const left = existsSync(box.path("backups")) ? readdirSync(box.path("backups")) : [];
    expect(left.filter((name) => name.startsWith("."))).toEqual([]);
  });

  test("the next command cleans up after an interrupted one", async () => {
    using box = await written();
    box.write("backups/.vm-partial-S0/disk-0.img.gz", "half");
    await box.ok("backup");
    expect(readdirSync(box.path("backups")).toSorted()).toEqual(["LAST", "S0"]);
  });

  test("names the command that holds the VM's lock (75)", async () => {
    using box = await written();
    box.program("pigz", `touch ${box.top}/begun; while [ ! -e ${box.top}/go ]; do sleep 0.01; done; exit 1`);
    const first = box.start("backup");
    await until("it has begun", () => existsSync(join(box.top, "begun")));
    await box.ends(75, "backup --lock-timeout=0", "backup", String(process.pid));
    writeFileSync(join(box.top, "go"), "");
    expect((await first.done).status).toBe(74);
  });
});

test("a restored disk has subclusters: the first write of 4 KiB allocates no more; gz and copies have none", async () => {
  using box = await written("SNAPSHOT_FORMAT=qcow2\n");
  await box.ok("@backup", "S0", "@restore");
  const disk = (): string => join(box.work, "disk-0.img");
  const clusterBytes = (): number => readOwnHeader(disk()).qcow2!.clusterBytes;
  expect(clusterBytes()).toBe(128 << 10);
  const write = (at: string): unknown =>
    Bun.spawnSync(["qemu-io", "-f", "qcow2", "-c", `write -q -P 7 ${at} 4k`, "-c", "flush", disk()]);
  // The first one allocates tables, too.
  write("64k");
  const before = allocated(disk());
  write("512k");
  expect(allocated(disk()) - before).toBeLessThan(32 << 10);
  const content = seen(box);
  await box.ok("@backup", "S1", "@backup", "--format=gz", "G");
  for (const name of ["S1", "G"]) {
    await box.ok("restore", "--copy", name);
    expect([seen(box), clusterBytes()]).toEqual([content, 64 << 10]);
  }
});

test("backup of a VM that is off fails if its qemu exits (74): status and last lines of qemu are reported", async () => {
  using box = await written("SNAPSHOT_FORMAT=qcow2\n");
  const backup = box.start("backup");
  const qemu = await box.nextQemu();
  qemu.blocks.jobsHang = true;
  await until("the copy has begun", () => qemu.blocks.jobs().length > 0);
  qemu.end(undefined, 1, "assertion failed");
  const { status, stderr } = await backup.done;
  expect(status).toBe(74);
  expect(stderr).toContain("cannot copy the disks: qemu exited (status 1):\n  assertion failed");
  expect(stderr).not.toContain("vm status");
});

describe("backup of the running VM", () => {
  const thawed = { "guest-fsfreeze-status": () => "thawed", "guest-fsfreeze-thaw": () => 1 };

  test.each<[title: string, behaviour: Behaviour, consistency: string]>([
    [
      "an agent that freezes the filesystems",
      { agent: { ...thawed, "guest-fsfreeze-freeze": () => 2 } },
      "agent",
    ],
    [
      "an agent without filesystems to freeze",
      { agent: { ...thawed, "guest-fsfreeze-freeze": () => 0 } },
      "crash-consistent",
    ],
    [
      "an agent that fails to freeze",
      {
        agent: {
          ...thawed,
          "guest-fsfreeze-freeze": () => {
            throw new Refusal("disabled");
          },
        },
      },
      "crash-consistent",
    ],
    [
      "an agent that exits while it freezes",
      {
        agent: {
          ...thawed,
          "guest-fsfreeze-freeze": (_args, vm) => {
            setTimeout(() => vm.emit("VSERPORT_CHANGE", { id: "channel0-dev", open: false }), 50);
            return HANG;
          },
        },
      },
      "crash-consistent",
    ],
    ["no agent", {}, "crash-consistent"],
  ])("%s", async (_title, behaviour, consistency) => {
    using box = await written("SNAPSHOT_FORMAT=qcow2\n");
    const qemu = await box.running(behaviour);
    await box.ok("backup");
    expect(manifest(box, "S0").consistency).toBe(consistency);
    // The guest's disk is unchanged, and qemu has no nodes of the backup left.
    expect(qemu.blocks.drives.get("disk0-dev")).toBe("disk0");
    expect([...qemu.blocks.nodes.keys()].filter((node) => node.startsWith("vm-"))).toEqual([]);
    expect(qemu.status).toBe("running");
  });

  test("a paused guest stays paused", async () => {
    using box = await written();
    const qemu = await box.running();
    await box.ok("pause");
    await box.ok("backup");
    expect(qemu.status).toBe("paused");
    expect(qemu.requests.filter(({ execute }) => execute === "cont")).toEqual([]);
  });

  test.each<[title: string, error: string, status: number, printed: string]>([
    ["no space at the target", "No space left on device", 73, "space"],
    ["no space for copy-before-write data", "Permission denied", 73, "space"],
    ["a disk that cannot be read", "Input/output error", 74, "Input/output error"],
  ])("%s: the guest's disks are unchanged", async (_title, error, status, printed) => {
    using box = await written("SNAPSHOT_FORMAT=qcow2\n");
    const qemu = await box.running();
    qemu.blocks.jobError = error;
    await box.ends(status, "backup", printed);
    expect(qemu.blocks.drives.get("disk0-dev")).toBe("disk0");
    expect(qemu.blocks.jobs()).toEqual([]);
    expect(existsSync(box.path("backups/S0"))).toBe(false);
    // Bitmaps of a failed snapshot are removed, too.
    expect(qemu.blocks.nodes.get("disk0")!.bitmaps).toEqual([]);
  });

  test("fails if the guest shuts down meanwhile (74)", async () => {
    using box = await written("SNAPSHOT_FORMAT=qcow2\n");
    const qemu = await box.running();
    qemu.blocks.jobsHang = true;
    const backup = box.start("backup");
    await until("the copy has begun", () => qemu.blocks.jobs().length > 0);
    qemu.powerOff();
    expect(await backup.done).toMatchObject({ status: 74, stderr: expect.stringContaining("qemu exited") });
  });

  test("if qemu rejects bitmaps, the next snapshot is a full one", async () => {
    using box = await written("SNAPSHOT_FORMAT=qcow2\n");
    await box.running({
      answers: {
        transaction: () => {
          throw new Refusal("no bitmaps here");
        },
      },
    });
    await box.ends(0, "backup", "no bitmaps here");
    await box.ok("backup");
    expect(manifest(box, "S1").parent).toBeUndefined();
  });

  test("cleans up in qemu after a killed command first", async () => {
    using box = await written("SNAPSHOT_FORMAT=qcow2\n");
    const qemu = await box.running({
      agent: {
        "guest-fsfreeze-status": () => "frozen",
        "guest-fsfreeze-thaw": () => 1,
        "guest-fsfreeze-freeze": () => 0,
      },
    });
    const { nodes, drives } = qemu.blocks;
    const disk = nodes.get("disk0")!;
    nodes.set("vm-fleece-disk0", { ...disk });
    nodes.set("vm-cbw-disk0", { ...disk, file: "disk0" });
    drives.set("disk0-dev", "vm-cbw-disk0");
    qemu.status = "paused";
    mkdirSync(box.path("backups/.vm-partial-S0"), { recursive: true });
    await box.ends(0, "backup", "frozen");
    expect(drives.get("disk0-dev")).toBe("disk0");
    expect([...nodes.keys()].filter((node) => node.startsWith("vm-"))).toEqual([]);
    expect(qemu.status).toBe("running");
  });

  test.each<[title: string, behaviour: Behaviour, status: number, printed: string]>([
    ["an old qemu", { version: "6.1.0" }, 69, "7."],
    [
      "a disk that qemu found corrupt",
      {
        answers: {
          "query-named-block-nodes": (_args, qemu) =>
            (qemu.blocks.answers["query-named-block-nodes"]!({}) as any[]).map((node) => ({
              ...node,
              image: { ...node.image, "format-specific": { data: { corrupt: true } } },
            })),
        },
      },
      74,
      "corrupt",
    ],
  ])("%s", async (_title, behaviour, status, printed) => {
    using box = await written("SNAPSHOT_FORMAT=qcow2\n");
    await box.running(behaviour);
    await box.ends(status, "backup", printed);
    expect(readdirSync(box.path("backups"))).toEqual([]);
  });

  test("another client uses the monitor (75)", async () => {
    using box = await written();
    await box.running({
      answers: { qmp_capabilities: (_args, qemu) => (qemu.requests.length > 1 ? HANG : {}) },
    });
    rmSync(join(box.work, "backup.sock"));
    rmSync(join(box.work, "monitor.sock"));
    await box.ends(75, "backup", "stop");
  });
});

describe("restore", () => {
  test("replaces the working files, in place too, and repeatedly", async () => {
    using box = await written();
    await box.ok("@backup", "@destroy");
    await box.ok("--inplace", "restore");
    expect(box.work).toBe(box.host);
    writeDisk(box, 3, 9);
    await box.ok("restore");
    expect([box.work, seen(box)]).toEqual([box.host, [1]]);
    expect(readdirSync(box.host).filter((name) => name.startsWith(".vm-r"))).toEqual([]);
  });

  test("an incomplete snapshot leaves the working files unchanged", async () => {
    using box = await written();
    await box.ok("backup");
    writeDisk(box, 1, 2);
    const gz = box.path("backups/S0/disk-0.img.gz");
    const good = readFileSync(gz);
    for (const bad of [good.subarray(0, good.length - 9), Buffer.from(good).fill(0x55, 20, 40)]) {
      writeFileSync(gz, bad);
      await box.ends(74, "restore", "S0");
      expect(seen(box)).toEqual([1, 2]);
    }
    rmSync(gz);
    await box.ends(74, "restore S0", "disk-0.img.gz");
    expect(seen(box)).toEqual([1, 2]);
    expect(readdirSync(box.tmp).length).toBe(1);
  });

  test.each<[line: string, status: number, printed: string]>([
    ["restore S9", 66, "S9"],
    ["restore .x", 64, ".x"],
    ["restore S0 --copy", 0, "S0"],
    ["restore LAST", 0, "S0"],
    ["restore --from-remote", 78, "SNAPSHOT_REPO"],
  ])("%s → %i", async (line, status, printed) => {
    using box = await written();
    await box.ok("backup");
    await box.ends(status, line, printed);
  });

  test("a snapshot of the earlier program: restores gz files and settings only", async () => {
    using box = await written();
    await box.ok("backup");
    for (const name of ["manifest.json", "SHA256SUMS", "TS"]) rmSync(box.path("backups/S0", name));
    writeDisk(box, 1, 2);
    await box.ends(0, "restore", "checksums");
    expect(seen(box)).toEqual([1]);
    expect((await box.json("snapshots"))[0]).toMatchObject({ name: "S0", problem: null });
    await box.ends(0, "verify", "S0", "good");
  });

  test("refuses a snapshot of another VM unless it is named", async () => {
    using box = await written();
    await box.ok("backup");
    await box.ok("identity", "--new");
    expect((await box.json("identity")).former.length).toBe(1);
    const text = box.read("backups/S0/manifest.json");
    const other = "00000000-0000-4000-8000-000000000000";
    const before = manifest(box, "S0").vm;
    writeFileSync(box.path("backups/S0/manifest.json"), text.replace(before, other));
    for (const name of ["SHA256SUMS"]) rmSync(box.path("backups/S0", name));
    await box.ends(74, "restore", other);
  });
});
