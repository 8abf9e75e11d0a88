import { describe, expect, spyOn, test } from "bun:test";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import * as storeFiles from "../../src/store/files.ts";
import { created as createdWith } from "../fixtures/built.ts";
import { Refusal, type FakeQemu } from "../fixtures/qemu/fake-qemu.ts";
import { Sandbox } from "../fixtures/sandbox.ts";
import { qemuImg } from "./snapshots.ts";

const MIB = 1 << 20;

const created = (...words: string[]): Promise<Sandbox> =>
  createdWith("MEMORY=64M\nCORES=1\nPORT=\nDISKS=(AHCI=1M)\nSHARES=()\n", ...words);

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

  test("an image outside HOSTDIR: stored with its absolute path and its format", async () => {
    using box = await created();
    const path = rawImage(box);
    symlinkSync(path, join(box.top, "here"));
    await box.ok("disk", "add", "SCSI=../here");
    expect(await images(box)).toEqual(["AHCI=disk-0.img", `SCSI=${join(box.top, "here")}`]);
    expect((await box.json("config", "IMAGE_FORMATS")).IMAGE_FORMATS.raw).toEqual([
      `raw=${join(box.top, "here")}`,
    ]);
    await box.ends(73, ["disk", "add", `VIRT=${path}`], "disk 1");
    await box.ok("disk", "remove", path);
    expect(await images(box)).toEqual(["AHCI=disk-0.img"]);
    expect(existsSync(path)).toBe(true);
    // Another file at this path is not taken for a raw one.
    expect((await box.json("config", "IMAGE_FORMATS")).IMAGE_FORMATS.raw).toEqual([]);
  });

  test("an image in HOSTDIR: stored by its path there; a copy of the VM has its own", async () => {
    using box = await created("--inplace");
    mkdirSync(box.path("data"));
    rawImage(box, "vm1/data/raw");
    qemuImg("create", "-q", "-f", "qcow2", box.path("qcow2"), "2M");
    await box.ok("disk", "add", "SCSI=data/raw");
    await box.ok("disk", "add", `VIRT=${box.path("qcow2")}`);
    expect(await images(box)).toEqual([
      "AHCI=disk-0.img",
      "SCSI=raw=@HOSTDIR@/data/raw",
      "VIRT=@HOSTDIR@/qcow2",
    ]);
    await box.ends(73, "disk add VIRT=data/raw", "disk 1");
    expect((await box.json("status")).reaches).toEqual([]);
    const copy = join(box.top, "copy");
    cpSync(box.host, copy, { recursive: true, verbatimSymlinks: true });
    const { argv } = await box.running({}, "-d", copy);
    const files = argv.flatMap((word, at) =>
      argv[at - 1] === "-blockdev" ? [JSON.parse(word).file.filename as string] : [],
    );
    expect(files).toEqual([join(copy, "disk-0.img"), join(copy, "data/raw"), join(copy, "qcow2")]);
    await box.ok("-d", copy, "stop");
    await box.ok("disk", "remove", "data/raw");
    expect(await images(box)).toEqual(["AHCI=disk-0.img", "VIRT=@HOSTDIR@/qcow2"]);
  });

  test("a missing image: named from the current directory, with the syntax of disk add (66)", async () => {
    using box = await created();
    const { stderr } = await box.ends(66, "disk add VIRT=../nope.img", "disk add VIRT=PATH");
    expect(stderr).toContain(`no such disk image: ${join(box.top, "nope.img")}\n`);
    expect(stderr).not.toContain("IMAGES");
  });

  test("a file whose name is a size: by its path", async () => {
    using box = await created();
    rawImage(box, "vm1/8E");
    await box.ok("disk", "add", "VIRT=./8E");
    expect(await images(box)).toEqual(["AHCI=disk-0.img", "VIRT=raw=@HOSTDIR@/8E"]);
  });

  test.each<[words: string, status: number, printed: string]>([
    ["add 0", 64, "512 bytes to 2048T"],
    ["add VIRT=8E", 64, "./8E"],
    ["add VIRT=0", 64, "512 bytes to 2048T"],
    ["add VIRT=-5G", 64, "cannot have the size '-5G'"],
    ["add VIRT=1.5T", 64, "512 bytes to 2048T"],
    ["add SCSI=2049T", 64, "512 bytes to 2048T"],
    ["add 100", 64, "512 bytes to 2048T"],
    ["resize 0 8E", 64, "512 bytes to 2048T"],
    ["add IDE=1G", 64, "allowed"],
    ["add VIRT=/nothing", 66, "/nothing"],
    ["add", 64, "missing"],
    ["list 1", 64, "too many"],
    ["grow 1", 64, "did you mean 'resize'"],
    ["rm 1", 64, "did you mean 'remove'"],
    ["ls", 64, "did you mean 'list'"],
    ["lst", 64, "did you mean 'list'"],
    ["frobnicate", 64, "is not list, add, remove, resize or set"],
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

test("disk list: a table by number, with format and size of each image", async () => {
  using box = await created();
  const path = rawImage(box);
  await box.ok("disk", "add", `SCSI=${path}`);
  await box.ok("disk", "add", "VIRT=2M");
  expect(await list(box)).toMatchObject([{ format: "qcow2" }, { format: "raw", virtualBytes: MIB }, {}]);
  const temporary = rawImage(box, "temporary");
  await box.running({}, "-i", `NVME=raw=${temporary}`);
  await box.ok("disk", "add", "AHCI=1M");
  const lines = (await box.ok("disk", "list")).stdout.trimEnd().split("\n");
  expect(lines.map((line) => line.replaceAll(/[\d.]+ [KM]iB/g, "SIZE").split(/ {2,}/))).toEqual([
    ["DISK", "BUS", "FORMAT", "SIZE", "ON HOST", "WHEN", "IMAGE"],
    ["0", "AHCI", "qcow2", "SIZE", "SIZE", "disk-0.img"],
    ["1", "SCSI", "raw", expect.any(String), "SIZE", path],
    ["2", "VIRT", "qcow2", "SIZE", "SIZE", "disk-2.img"],
    ["3", "NVME", "raw", expect.any(String), "SIZE", "this run only", temporary],
    ["4", "AHCI", "qcow2", "SIZE", "SIZE", "from the next run on", "disk-4.img"],
  ]);
});

describe("status", () => {
  test("shows all disks and the CD, of a VM that is off and of a running one", async () => {
    using box = await created();
    const [own, outside, temporary] = [rawImage(box, "vm1/in"), rawImage(box), rawImage(box, "temporary")];
    await box.ok("disk", "add", "SCSI=in");
    await box.ok("disk", "add", `NVME=${outside}`);
    const off = await box.json("status");
    expect(off.disks).toMatchObject([{ file: "disk-0.img", number: 0, bus: "AHCI", virtualBytes: MIB }]);
    expect(off.images).toMatchObject([
      { number: 1, bus: "SCSI", format: "raw", virtualBytes: MIB, attached: null },
      // No file outside of the VM is opened.
      { number: 2, bus: "NVME", image: outside, virtualBytes: null, actualBytes: null },
    ]);
    expect(off.cd).toBeNull();
    await box.ends(0, "status", /^disk: +1 on SCSI: @HOSTDIR@\/in, 1\.0 MiB/m, /^cd: +none$/m);
    box.write("a.iso", iso());
    await box.ok("cd", "a.iso");
    expect((await box.json("status")).cd).toBe("a.iso");
    await box.running({}, "-i", `VIRT=raw=${temporary}`);
    await box.ok("disk", "add", "AHCI=1M");
    const on = await box.json("status");
    expect(on.disks.map(({ file, attached }: any) => [file, attached])).toEqual([
      ["disk-0.img", true],
      ["disk-4.img", false],
    ]);
    expect(
      on.images.map(({ number, bus, image, attached, stored }: any) => [
        number,
        bus,
        image,
        attached,
        stored,
      ]),
    ).toEqual([
      [1, "SCSI", "@HOSTDIR@/in", true, true],
      [2, "NVME", outside, true, true],
      [3, "VIRT", temporary, true, false],
    ]);
    expect(on.cd).toBe(box.path("a.iso"));
    await box.ends(
      0,
      "status",
      /3 on VIRT: .*; this run only$/m,
      /4 on AHCI: disk-4\.img.*; from the next run on$/m,
    );
    await box.ok("cd", "--eject");
    expect((await box.json("status")).cd).toBeNull();
    expect(existsSync(own)).toBe(true);
  });

  test("a disk that guest.env does not name", async () => {
    using box = await created();
    qemuImg("create", "-q", "-f", "qcow2", join(box.work, "disk-3.img"), "1M");
    expect((await box.json("status")).disks[1]).toMatchObject({
      file: "disk-3.img",
      number: null,
      bus: null,
    });
    await box.ends(0, "status", /^disk: +disk-3\.img, 1\.0 MiB.*; not in IMAGES$/m);
  });

  test("shows backing files of images, and what forwards give access to", async () => {
    using box = await created();
    const base = join(box.top, "base");
    qemuImg("create", "-q", "-f", "qcow2", base, "1M");
    for (const [name, below] of [
      ["middle", base],
      ["over", "middle"],
    ] as const)
      qemuImg("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", below, box.path(name));
    symlinkSync(rawImage(box), box.path("link"));
    const path = join(box.work, "guest.env");
    const text = readFileSync(path, "utf8").replace(/^FORWARDS=.*$/m, "");
    const listed = [
      "AHCI=disk-0.img",
      "VIRT=qcow2=@HOSTDIR@/over",
      "VIRT=raw=@HOSTDIR@/link",
      "VIRT=qcow2=/x",
    ];
    writeFileSync(
      path,
      `${text.replace(/IMAGES=\([^)]*\)/, "")}IMAGES=(${listed.join(" ")})\nFORWARDS="smb=/srv,,a,tftp=../../srv,guestfwd=tcp:10.0.2.100:7-cmd:/bin/cat"\n`,
    );
    expect((await box.json("status")).reaches).toEqual([
      { kind: "share", what: "/srv,a", writable: true },
      { kind: "netboot", what: join(box.work, "../../srv") },
      { kind: "command", what: "/bin/cat" },
      { kind: "base", what: base },
      { kind: "image", what: join(box.top, "data"), writable: true },
      { kind: "image", what: "/x", writable: true, backing: true },
    ]);
    await box.ends(0, "status", "image /x, writable, with its backing files");
  });
});

/** The least that passes as a CD (test/commands/cd.test.ts). */
function iso(): Buffer {
  const bytes = Buffer.alloc(40 * 2048);
  bytes.write("\u0001CD001\u0001", 16 * 2048, "latin1");
  return bytes;
}

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

/** Place of the SCSI controller. */
const place = ({ argv }: FakeQemu): string | undefined =>
  argv.find((word) => word.includes("id=scsi0"))?.replace(/.*id=scsi0/, "");

describe("a controller stays at its place", () => {
  test.each(["off", "running"])("when its first disk is removed (%s)", async (state) => {
    using box = await created();
    for (let number = 1; number <= 2; number++) await box.ok("disk", "add", "SCSI=1M");
    const before = await box.running();
    expect(place(before)).toContain(",addr=");
    if (state === "off") await box.ok("stop");
    await box.ok("disk", "remove", "1", "--delete");
    if (state === "running") await box.ok("stop");
    const after = await box.running();
    expect(place(after)).toBe(place(before)!);
    expect(after.argv.join(" ")).toContain("serial=disk-2");
    await box.ok("disk", "remove", "2", "--delete");
    expect(after.blocks.devices.has("scsi0")).toBe(false);
    expect((await box.json("config", "CONTROLLER_PLACES")).CONTROLLER_PLACES.raw).toEqual([]);
  });

  test("and that place is no other disk's, also of one that is typed", async () => {
    using box = await created();
    for (let number = 1; number <= 8; number++)
      await box.ok("disk", "add", `${number < 3 ? "SCSI" : "VIRT"}=1M`);
    await box.running();
    for (const number of [1, 4]) await box.ok("disk", "remove", String(number), "--delete");
    // Behind the last one the running machine has no place.
    await box.ends(0, "disk add VIRT=1M", "as disk 4", "attached to the running guest");
    await box.ok("stop");
    for (const number of [0, 3, 4, 5, 6, 7, 8]) await box.ok("disk", "remove", String(number), "--delete");
    const { argv } = await box.running({}, "-i", `VIRT=raw=${rawImage(box)}`);
    const slots = argv.flatMap((word) => /,bus=pci\.0,addr=([^,]+)/.exec(word)?.[1] ?? []);
    expect(new Set(slots).size).toBe(slots.length);
  });

  test("when a disk with a lower number is added", async () => {
    using box = await created();
    await box.ok("disk", "add", "VIRT=1M");
    await box.ok("disk", "add", "SCSI=1M");
    const before = await box.running();
    await box.ok("stop");
    await box.ok("disk", "remove", "1", "--delete");
    qemuImg("create", "-q", "-f", "qcow2", join(box.work, "disk-1.img"), "1M");
    await box.ok("disk", "add", "SCSI=disk-1.img");
    expect((await list(box)).map(({ number, bus }) => `${number} ${bus}`).toSorted()).toEqual([
      "0 AHCI",
      "1 SCSI",
      "2 SCSI",
    ]);
    expect(place(await box.running())).toBe(place(before)!);
  });
});

describe("disk remove, VM off", () => {
  test("without space for guest.env: nothing is changed, no marker is left (73)", async () => {
    using box = await created();
    await box.ok("disk", "add", "1M");
    const full = spyOn(storeFiles, "replaceFile").mockImplementation(() => {
      throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC", errno: -28 });
    });
    try {
      await box.ends(73, "disk remove 1 --delete", "no space");
    } finally {
      full.mockRestore();
    }
    expect(disksIn(box)).toEqual(["disk-0.img", "disk-1.img"]);
    await box.ok("disk", "remove", "1", "--delete");
    expect(disksIn(box)).toEqual(["disk-0.img"]);
  });

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

/** The guest was asked before, and releases it a moment later. */
const pending = (_args: unknown, qemu: FakeQemu): never => {
  setTimeout(() => {
    qemu.blocks.devices.delete("disk1-dev");
    qemu.blocks.drives.delete("disk1-dev");
    qemu.emit("DEVICE_DELETED", { device: "disk1-dev" });
  }, 50);
  throw new Refusal("Device disk1-dev is already in the process of unplug");
};

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

  test("remove, requested before: waits for the guest", async () => {
    using box = await created();
    await box.ok("disk", "add", "VIRT=1M");
    await box.running({ answers: { device_del: pending } });
    await box.ok("disk", "remove", "1", "--delete");
    expect(disksIn(box)).toEqual(["disk-0.img"]);
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

test("disk resize --fs of a VM that is off, without a rescue system: refused before the disk grows (66)", async () => {
  using box = await created();
  await box.ends(66, "disk resize 0 2M --fs", "no rescue system", "rescue build");
  expect((await list(box))[0]!.virtualBytes).toBe(MIB);
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
