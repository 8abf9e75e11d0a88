import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Refusal, type FakeQemu } from "../fixtures/qemu/fake-qemu.ts";
import { Sandbox } from "../fixtures/sandbox.ts";
import { qemuImg } from "./snapshots.ts";

const MIB = 1 << 20;

async function created(...words: string[]): Promise<Sandbox> {
  const box = new Sandbox("MEMORY=64M\nCORES=1\nPORT=\nDISKS=(AHCI=1M)\nSHARES=()\n");
  await box.ok(...words, "create", "G");
  return box;
}

interface Listed {
  number: number;
  image: string;
  bus: string;
  virtualBytes: number;
  attached: boolean | null;
  stored: boolean;
}

const list = (box: Sandbox): Promise<Listed[]> => box.json<Listed[]>("disk", "list");
const images = async (box: Sandbox): Promise<string[]> => (await box.json("config", "IMAGES")).IMAGES.raw;
const disksIn = (box: Sandbox): string[] =>
  readdirSync(box.work)
    .filter((name) => name.includes("disk-"))
    .toSorted();
/** Disk nodes and devices in a fake. */
const inside = ({ blocks }: FakeQemu): { nodes: string[]; devices: string[] } => ({
  nodes: [...blocks.nodes.keys()].filter((name) => !name.endsWith("-file")),
  devices: [...blocks.devices.keys()].filter((name) => /^(disk\d|scsi)/.test(name)),
});

function rawImage(box: Sandbox, name = "data"): string {
  const path = join(box.top, name);
  writeFileSync(path, Buffer.alloc(MIB));
  return path;
}

describe("disk add, VM off", () => {
  test("creates disk-1.img on the bus of the first disk, and the next run has it", async () => {
    using box = await created();
    await box.ends(0, "disk add 2M", "disk 1 on AHCI");
    await box.ends(0, "disk add VIRT=3M", "disk 2 on VIRT");
    expect(await images(box)).toEqual(["AHCI=disk-0.img", "AHCI=disk-1.img", "VIRT=disk-2.img"]);
    expect(disksIn(box)).toEqual(["disk-0.img", "disk-1.img", "disk-2.img"]);
    expect(statSync(join(box.work, "disk-1.img")).mode & 0o77).toBe(0);
    expect(
      (await list(box)).map(({ number, virtualBytes, attached }) => [number, virtualBytes, attached]),
    ).toEqual([
      [0, MIB, null],
      [1, 2 * MIB, null],
      [2, 3 * MIB, null],
    ]);
    const { argv } = await box.running();
    expect(argv.join(" ")).toContain("serial=disk-2");
  });

  test("an image: stored with its absolute path and its format", async () => {
    using box = await created();
    const path = rawImage(box);
    symlinkSync(path, box.path("here"));
    await box.ok("disk", "add", "SCSI=here");
    expect(await images(box)).toEqual(["AHCI=disk-0.img", `SCSI=${box.path("here")}`]);
    expect((await box.json("config", "IMAGE_FORMATS")).IMAGE_FORMATS.raw).toEqual([
      `raw=${box.path("here")}`,
    ]);
    await box.ends(73, ["disk", "add", `VIRT=${path}`], "disk 1");
    await box.ok("disk", "remove", path);
    expect(await images(box)).toEqual(["AHCI=disk-0.img"]);
    expect(existsSync(path)).toBe(true);
    // Another file at this path is not taken for a raw one.
    expect((await box.json("config", "IMAGE_FORMATS")).IMAGE_FORMATS.raw).toEqual([]);
  });

  test.each<[words: string, status: number, printed: string]>([
    ["add 0", 64, "allowed"],
    ["add IDE=1G", 64, "allowed"],
    ["add VIRT=/nothing", 66, "/nothing"],
    ["add", 64, "missing"],
    ["list 1", 64, "too many"],
    ["grow 1", 64, "none of"],
    ["remove 7 --delete", 66, "no disk 7"],
    ["remove disk-0.img", 64, "--delete"],
    ["resize 0 1K", 64, "shrinking"],
    ["resize 0 1000", 64, "multiple of 512"],
    ["resize 0", 64, "missing"],
    ["resize 0 +1M --delete", 64, "--delete"],
  ])("%s: %d", async (words, status, printed) => {
    using box = await created();
    const before = readFileSync(join(box.work, "guest.env"), "utf8");
    await box.ends(status, `disk ${words}`, printed);
    expect(disksIn(box)).toEqual(["disk-0.img"]);
    expect(readFileSync(join(box.work, "guest.env"), "utf8")).toBe(before);
  });

  test("with --image: refused, as that image is not the VM's", async () => {
    using box = await created();
    await box.ends(64, ["-i", `VIRT=${rawImage(box)}`, "disk", "add", "1M"], "--image");
  });

  test("a guest.env with more than plain lines: nothing is left behind (78)", async () => {
    using box = await created();
    const path = join(box.work, "guest.env");
    writeFileSync(path, `${readFileSync(path, "utf8")}MEMORY=$(echo 64M)\n`);
    await box.ends(78, "disk add 1M");
    expect(readdirSync(box.work).filter((name) => /disk-[^0]|partial/.test(name))).toEqual([]);
  });

  test("more disks than places: 64", async () => {
    using box = await created();
    const path = join(box.work, "guest.env");
    const many = Array.from({ length: 39 }, (_, index) => `"VIRT=raw=/x${index}"`).join(" ");
    writeFileSync(
      path,
      readFileSync(path, "utf8").replace(/IMAGES=\([^)]*\)/, `IMAGES=("AHCI=disk-0.img" ${many})`),
    );
    await box.ends(64, "disk add VIRT=1M", "places for disks");
  });
});

describe("after a kill", () => {
  test("a disk that guest.env does not name yet is removed, one that it names stays", async () => {
    using box = await created();
    await box.ok("disk", "add", "1M");
    for (const number of [1, 2]) {
      writeFileSync(join(box.work, `.vm-partial-disk-${number}.img`), "");
      qemuImg("create", "-q", "-f", "qcow2", join(box.work, `disk-${number}.img`), "1M");
    }
    await box.ok("backup");
    expect(disksIn(box)).toEqual(["disk-0.img", "disk-1.img"]);
  });

  test("a guest.env that cannot be read literally: no disk is removed", async () => {
    using box = await created();
    writeFileSync(join(box.work, "guest.env"), "GUESTNAME=$(echo G)\nIMAGES=(AHCI=disk-0.img)\n");
    writeFileSync(join(box.work, ".vm-partial-disk-0.img"), "");
    await box.ends(78, "backup");
    expect(disksIn(box)).toEqual(["disk-0.img"]);
  });
});

describe("disk remove, VM off", () => {
  test("other disks keep their numbers", async () => {
    using box = await created();
    const [a, b] = [rawImage(box, "a"), rawImage(box, "b")];
    for (const path of [a, b]) await box.ok("disk", "add", `VIRT=${path}`);
    await box.ok("disk", "add", "VIRT=1M");
    await box.ok("disk", "remove", "1");
    expect((await list(box)).map(({ number, image }) => [number, image])).toEqual([
      [0, "disk-0.img"],
      [2, b],
      [3, "disk-3.img"],
    ]);
    await box.ok("disk", "remove", "disk-0", "--delete");
    expect(existsSync(join(box.work, "disk-0.img"))).toBe(false);
    expect((await list(box)).map(({ number }) => number)).toEqual([2, 3]);
    const { argv } = await box.running();
    expect(argv.join(" ")).toContain("id=disk2-dev");
  });

  test("snapshots before and after: each restores its disks", async () => {
    using box = await created();
    box.configure("SNAPSHOT_FORMAT=qcow2\n");
    await box.ok("disk", "add", "1M");
    await box.ok("backup");
    await box.ok("disk", "remove", "1", "--delete");
    await box.ok("backup");
    await box.ok("disk", "add", "2M");
    await box.ok("backup");
    await box.ok("verify", "--all");
    await box.ok("snapshots", "diff", "S0", "S2");
    for (const [name, sizes] of [
      ["S0", [1, 1]],
      ["S1", [1]],
      ["S2", [1, 2]],
    ] as const) {
      await box.ok("restore", name);
      expect((await list(box)).map(({ virtualBytes }) => virtualBytes / MIB)).toEqual([...sizes]);
    }
  });
});

describe("running", () => {
  test.each(["VIRT", "NVME", "SCSI"])("a disk on %s is attached, and removed again", async (bus) => {
    using box = await created();
    const qemu = await box.running();
    await box.ends(0, `disk add ${bus}=2M`, "attached to the running guest");
    expect((await list(box))[1]).toMatchObject({
      number: 1,
      attached: true,
      stored: true,
      virtualBytes: 2 * MIB,
    });
    const added = qemu.blocks.devices.get("disk1-dev")!;
    expect(added).toMatchObject({ drive: "disk1", serial: "disk-1" });
    // As the next start has it.
    await box.ok("stop");
    const next = await box.running();
    expect(JSON.parse(next.option("-blockdev", "disk1")!)["node-name"]).toBe("disk1");
    for (const name of ["bus", "addr", "scsi-id"])
      if (added[name] !== undefined)
        expect(`,${next.option("-device", "disk1")},`).toContain(`,${name}=${added[name]},`);
    await box.ok("disk", "remove", "1", "--delete");
    expect(inside(next)).toEqual({ nodes: ["disk0"], devices: ["disk0-dev"] });
    expect(disksIn(box)).toEqual(["disk-0.img"]);
    expect(await list(box)).toMatchObject([{ number: 0, attached: true }]);
  });

  test("AHCI: from the next run; a backup meanwhile has the disk, and leaves no node", async () => {
    using box = await created();
    box.configure("SNAPSHOT_FORMAT=qcow2\n");
    const qemu = await box.running();
    await box.ends(0, "disk add 2M", "from the next run", "AHCI");
    expect((await list(box))[1]).toMatchObject({ number: 1, attached: false, stored: true });
    expect(inside(qemu).nodes).toEqual(["disk0"]);
    await box.ok("backup");
    await box.ok("backup");
    expect(inside(qemu).nodes).toEqual(["disk0"]);
    const { files, parent } = JSON.parse(box.read("backups/S1/manifest.json"));
    expect(parent).toBe("S0");
    expect(files.map(({ name }: { name: string }) => name)).toEqual(["disk-0.img", "disk-1.img"]);
    await box.ok("disk", "remove", "1", "--delete");
    expect(await list(box)).toMatchObject([{ number: 0 }]);
  });

  test("qemu refuses the device: stored for the next run, no node is left", async () => {
    using box = await created();
    const qemu = await box.running({
      answers: {
        device_add: () => {
          throw new Refusal("Bus 'bridge1' not found");
        },
      },
    });
    await box.ends(0, "disk add VIRT=1M", "from the next run", "bridge1");
    expect(inside(qemu).nodes).toEqual(["disk0"]);
    expect((await list(box))[1]).toMatchObject({ attached: false, stored: true });
  });

  test("a node that a killed command has left is closed", async () => {
    using box = await created();
    const qemu = await box.running();
    await box.ok("disk", "add", "VIRT=1M");
    qemu.blocks.devices.delete("disk1-dev");
    qemu.blocks.drives.delete("disk1-dev");
    expect((await list(box))[1]).toMatchObject({ attached: false });
    await box.ok("backup");
    await box.ok("disk", "add", "VIRT=1M");
    expect(inside(qemu).nodes).toEqual(["disk0", "disk2"]);
    await box.ok("disk", "remove", "1", "--delete");
    expect(inside(qemu).nodes).toEqual(["disk0", "disk2"]);
  });

  test.each<[what: string, refuse: (qemu: FakeQemu) => unknown, status: number, printed: string]>([
    [
      "the guest refuses",
      (qemu) => qemu.emit("DEVICE_UNPLUG_GUEST_ERROR", { device: "disk1-dev" }),
      75,
      "refused",
    ],
    [
      "the bus has no hot plug",
      () => {
        throw new Refusal("Bus 'pcie.0' does not support hotplugging");
      },
      75,
      "hotplugging",
    ],
  ])("remove, %s: nothing is changed", async (_what, refuse, status, printed) => {
    using box = await created();
    await box.ok("disk", "add", "VIRT=1M");
    const qemu = await box.running({ answers: { device_del: (_args, one) => void refuse(one) } });
    await box.ends(status, "disk remove 1 --delete", printed, "stop && ");
    expect(inside(qemu).nodes).toEqual(["disk0", "disk1"]);
    expect(disksIn(box)).toEqual(["disk-0.img", "disk-1.img"]);
    expect((await list(box))[1]).toMatchObject({ attached: true, stored: true });
  });

  test("the first disk, and any disk of a paused guest, stay: 75", async () => {
    using box = await created();
    await box.ok("disk", "add", "VIRT=1M");
    await box.running();
    await box.ends(75, "disk remove 0 --delete", "it is the first one");
    await box.ok("pause");
    await box.ends(75, "disk remove 1 --delete", "paused");
  });

  test("resize: by qemu if attached, else of the file", async () => {
    using box = await created();
    const qemu = await box.running();
    await box.ends(0, "disk resize 0 +1M", "2.0 MiB");
    expect(qemu.requests.findLast(({ execute }) => execute === "block_resize")?.arguments).toEqual({
      "node-name": "disk0",
      size: 2 * MIB,
    });
    await box.ok("disk", "add", "1M");
    await box.ok("disk", "resize", "1", "4M");
    expect((await list(box)).map(({ virtualBytes }) => virtualBytes / MIB)).toEqual([2, 4]);
  });

  test("an image of --image is listed for this run", async () => {
    using box = await created();
    const path = rawImage(box);
    await box.running({}, "-i", `VIRT=${path}`);
    await box.ok("disk", "add", "VIRT=1M");
    expect((await list(box)).map(({ number, image, stored }) => [number, image, stored])).toEqual([
      [0, "disk-0.img", true],
      [2, "disk-2.img", true],
      [1, path, false],
    ]);
  });
});

describe("disk resize, VM off", () => {
  test("grows the image; snapshots of both sizes restore", async () => {
    using box = await created();
    box.configure("SNAPSHOT_FORMAT=qcow2\n");
    await box.ok("backup");
    await box.ends(0, "disk resize disk-0.img 3M", "from 1.0 MiB to 3.0 MiB");
    await box.ends(0, "disk resize 0 3M", "already");
    await box.ok("backup");
    expect(JSON.parse(box.read("backups/S1/manifest.json")).parent).toBeUndefined();
    // On a snapshot's image as backing file.
    await box.ok("restore", "S1");
    await box.ok("disk", "resize", "0", "+1M");
    await box.ok("backup");
    for (const [name, size] of [
      ["S0", 1],
      ["S2", 4],
      ["S1", 3],
    ] as const) {
      await box.ok("restore", name);
      expect((await list(box)).map(({ virtualBytes }) => virtualBytes / MIB)).toEqual([size]);
    }
  });

  test("a raw image grows, too", async () => {
    using box = await created();
    const path = rawImage(box);
    await box.ok("disk", "add", `VIRT=raw=${path}`);
    await box.ok("disk", "resize", "1", "2M");
    expect(statSync(path).size).toBe(2 * MIB);
  });
});

test("disk resize --fs of a running VM without an agent: refused before anything is done (69)", async () => {
  using box = await created();
  const qemu = await box.running();
  await box.ends(69, "disk resize 0 2M --fs", "agent", "disk resize 0 2M --fs");
  expect(qemu.requests.some(({ execute }) => execute === "block_resize")).toBe(false);
});

test("disk resize --fs without a rescue system: the disk has grown, the job says what is missing (66)", async () => {
  using box = await created();
  await box.ends(66, "disk resize 0 2M --fs", "resized disk 0", "rescue");
  expect((await list(box))[0]!.virtualBytes).toBe(2 * MIB);
});

test("disk resize --fs of a running VM: the job's script runs in the guest by its agent", async () => {
  using box = await created();
  const asked: Record<string, any>[] = [];
  await box.running({
    agent: {
      "guest-exec": (args) => (asked.push(args), { pid: 7 }),
      "guest-exec-status": () => ({ exited: true, exitcode: 0, "out-data": btoa("exec: resize2fs\n") }),
    },
  });
  await box.ends(0, "disk resize 0 +1M --fs", "resized disk 0", "exec: resize2fs");
  expect(asked[0]).toMatchObject({ path: "bash", arg: ["-s", "--", "disk-0"] });
  expect(atob(asked[0]!["input-data"])).toContain("resize2fs");
  await box.ok("disk", "add", "1M");
  await box.ends(75, "disk resize 1 +1M --fs", "does not have it");
});

test("a running machine without a place behind the last disk: the lowest free number", async () => {
  using box = await created();
  for (let number = 1; number <= 8; number++) await box.ok("disk", "add", "VIRT=1M");
  await box.running();
  for (const number of [3, 5]) await box.ok("disk", "remove", String(number), "--delete");
  await box.ends(0, "disk add VIRT=1M", "as disk 3", "attached to the running guest");
  await box.ends(0, "disk add SCSI=1M", "as disk 5", "attached to the running guest");
  await box.ok("disk", "remove", "5", "--delete");
  await box.ends(0, "disk add VIRT=1M", "as disk 5", "attached to the running guest");
  await box.ends(0, "disk add AHCI=1M", "as disk 9", "from the next run");
}, 60_000);
