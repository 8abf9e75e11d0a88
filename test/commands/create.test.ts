import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { readOwnHeader, readVirtualBytes } from "../../src/qemu/image-header.ts";
import { Sandbox } from "../fixtures/sandbox.ts";

const MiB = 1 << 20;
/** Cluster size of overlays with subclusters. */
const SUBCLUSTERED = 128 << 10;
const qemuImg = (...words: string[]): void => void Bun.spawnSync(["qemu-img", ...words]);

/** Creates an image of 1 MiB beside HOSTDIR. */
function image(box: Sandbox, name: string, format = "qcow2"): string {
  const path = join(box.top, name);
  qemuImg("create", "-q", "-f", format, path, "1M");
  return path;
}

describe("create", () => {
  test("writes disks, settings and symlinks, private to the user", async () => {
    using box = new Sandbox();
    await box.ok("--disks=VIRT=1M,SCSI=2M", "--memory=96M", "--forward=tcp::8022-:22", "create", "WS10");
    expect(readdirSync(box.work).toSorted()).toEqual(
      [".host", ".in", ".out", ".vm.json", "FIRSTTIME", "disk-0.img", "disk-1.img", "guest.env"].toSorted(),
    );
    expect(["disk-0.img", "disk-1.img"].map((name) => readVirtualBytes(join(box.work, name)))).toEqual([
      MiB,
      2 * MiB,
    ]);
    expect(statSync(box.work).mode & 0o777).toBe(0o700);
    expect(statSync(join(box.work, "disk-0.img")).mode & 0o777).toBe(0o600);
    const config = await box.json("config", "GUESTNAME", "MEMORY", "FORWARDS", "IMAGES");
    expect(Object.values<any>(config).map(({ raw }) => raw)).toEqual([
      "WS10",
      "96M",
      "hostfwd=tcp::8022-:22",
      ["VIRT=disk-0.img", "SCSI=disk-1.img"],
    ]);
  });

  test("--inplace creates the working files in HOSTDIR", async () => {
    using box = new Sandbox();
    await box.ok("--inplace", "create", "G");
    expect(box.work).toBe(box.host);
    expect(existsSync(box.path("disk-0.img"))).toBe(true);
    expect(readdirSync(box.tmp)).toEqual([]);
  });

  test("--from copies an image, and grows it", async () => {
    using box = new Sandbox("PORT=\n");
    const from = image(box, "cloud.qcow2");
    await box.ok("create", "G", "--from", from, "--disk-size=3M");
    const disk = join(box.work, "disk-0.img");
    expect(readVirtualBytes(disk)).toBe(3 * MiB);
    expect(readOwnHeader(disk).backingName).toBeUndefined();
  });

  test("--from uses the size of DISKS if that is larger, and reports it", async () => {
    using box = new Sandbox("PORT=\nDISKS=(VIRT=2M AHCI=1M)\n");
    await box.ends(0, ["create", "G", "--from", image(box, "a.raw", "raw")], "2.0 MiB", "1.0 MiB");
    expect(readVirtualBytes(join(box.work, "disk-0.img"))).toBe(2 * MiB);
    expect((await box.json("config", "IMAGES")).IMAGES.raw).toEqual(["VIRT=disk-0.img", "AHCI=disk-1.img"]);
  });

  test("--from --linked creates an overlay", async () => {
    using box = new Sandbox();
    const from = image(box, "base.qcow2");
    await box.ok("create", "G", "--from", from, "--linked");
    const header = readOwnHeader(join(box.work, "disk-0.img"));
    expect(header.backingName).toBe(from);
    expect(header.qcow2?.clusterBytes).toBe(SUBCLUSTERED);
    expect((await box.json("status")).reaches).toContainEqual({ kind: "base", what: from });
    const qemu = await box.running();
    expect(qemu.argv.join(" ")).toContain(from);
    await box.ok("stop");
    await box.ok("backup", "--format=qcow2");
    // The backing file was merged into the snapshot.
    const stored = readOwnHeader(box.path("backups/S0/disk-0.qcow2"));
    expect([stored.backingName, stored.qcow2?.clusterBytes]).toEqual([undefined, 64 << 10]);
    Bun.spawnSync(["touch", "-d", "yesterday", from]);
    await box.ends(74, "run", from);
  });

  test("cloud-init gets the host name and the user's key", async () => {
    using box = new Sandbox("PORT=\n");
    // Replaces mkisofs: keeps its input.
    box.program("xorriso", 'while [ "$1" != -o ]; do shift; done; cat user-data meta-data >"$2"');
    box.write(join(box.home, ".ssh/id_ed25519.pub"), "ssh-ed25519 AAAA me\n# a remark\n");
    await box.ends(0, ["create", "My Guest", "--from", image(box, "a.qcow2"), "--user=anna"], /1?.*SSH key/);
    const seed = readFileSync(join(box.work, "vm-seed.img"), "utf8");
    expect(seed).toContain("ssh-ed25519 AAAA me");
    expect(seed).toContain("anna");
    expect(seed).toContain("my-guest");
    // Kernels of cloud images support virtio.
    const config = await box.json("config", "IMAGES", "SSH_USER");
    expect(config.IMAGES.raw).toEqual(["VIRT=disk-0.img"]);
    expect(config.SSH_USER.value).toBe("anna");
    expect((await box.running()).argv.join(" ")).toContain("vm-seed.img");
  });

  test("cloud-init: uses the user's own user-data unchanged", async () => {
    using box = new Sandbox();
    box.program("xorriso", 'while [ "$1" != -o ]; do shift; done; cat user-data >"$2"');
    box.write("mine", "no-cloud-config");
    await box.ends(0, ["create", "G", "--user-data=mine"], "ignore");
    expect(readFileSync(join(box.work, "vm-seed.img"), "utf8")).toBe("no-cloud-config");
  });

  test("adds an existing image as a further disk, and records its format", async () => {
    using box = new Sandbox();
    const [kept, once] = [image(box, "kept.qcow2"), image(box, "once.raw", "raw")];
    await box.ok("-i", `AHCI=raw=${once}`, "create", "G", "--image", `VIRT=${kept}`);
    const { IMAGES, IMAGE_FORMATS } = await box.json("config", "IMAGES", "IMAGE_FORMATS");
    expect(IMAGES.raw).toEqual(["AHCI=disk-0.img", `VIRT=${kept}`]);
    expect(IMAGE_FORMATS.raw).toEqual([`qcow2=${kept}`]);
    // The format of an image that is created later is recorded at its first use.
    const later = image(box, "later.qcow2");
    await box.running({}, "-i", `SCSI=${later}`).catch(() => {});
    await box.ok("stop");
  });
});

describe("create fails without leaving anything", () => {
  let box: Sandbox;
  beforeAll(() => {
    box = new Sandbox();
    image(box, "base.qcow2");
    qemuImg("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", join(box.top, "over.qcow2"));
    box.write("page.iso", "<!DOCTYPE html><html>");
    box.write("short.qcow2", "QFI\xfb");
    box.write("empty", "");
    symlinkSync("/nowhere", box.path("dangling"));
    mkdirSync(box.path("directory"));
  });
  afterAll(() => box[Symbol.dispose]());

  test.each<[line: string | string[], status: number, printed: string]>([
    ["create", 64, "GUESTNAME"],
    [["create", "a\nb"], 64, "printable text"],
    [["create", "a\u001b[1mb"], 64, "printable text"],
    [["create", "x".repeat(201)], 64, "at most 200 bytes"],
    ["create G nothing.iso", 66, "nothing.iso"],
    ["create G page.iso", 74, "page.iso"],
    ["create G directory", 66, "directory"],
    ["create G --from=nothing", 66, "nothing"],
    ["create G --from=dangling", 66, "dangling"],
    ["create G --from=directory", 66, "directory"],
    ["create G --from=../over.qcow2", 74, "backing file"],
    ["create G --from=short.qcow2", 74, "short.qcow2"],
    ["create G --from=../base.qcow2 --disk-size=1K", 64, "--disk-size"],
    ["create G --from=../base.qcow2 --disk-size=x", 64, "--disk-size"],
    ["create G --from=../base.qcow2 --cloud-init", 66, "cloud-init"],
    ["create G --user-data=nothing", 66, "nothing"],
    ["create G --user=0x", 64, "--user"],
    ["create G --user=a --user-data=b", 64, "--user-data"],
    ["create G --linked", 64, "--from"],
    ["create G --disk-size=1G", 64, "--from"],
    ["create G --from=", 64, "--from"],
    ["create G --image=XX=a", 64, "--image"],
    ["--memory=lots create G", 64, "--memory"],
    ["--cores=500 create G", 64, "processors"],
    ["--port=5900 --forward=tcp::5900-:22 create G", 75, "5900"],
    ["-d /nowhere/at/all create G", 66, "/nowhere/at/all"],
    ["--memory=64M create G", 0, "created"],
  ])("%j → %i", async (line, status, printed) => {
    // This one succeeds: the others fail only for the reason given.
    await box.ends(status, line, printed);
    expect(existsSync(box.path(".work"))).toBe(status === 0);
  });

  test.each<[what: string, prepare: (box: Sandbox) => unknown, status: number, printed: string]>([
    ["working files", (one) => one.ok("create", "G"), 73, "working files"],
    ["snapshots", (one) => one.ok("@create", "G", "@backup", "S0", "@destroy"), 73, "snapshots"],
    ["settings", (one) => one.write("guest.env", "GUESTNAME=x\n"), 73, "guest.env"],
    ["a disk", (one) => one.write("disk-0.img", "x"), 73, "disk-0.img"],
  ])("fails with %s", async (_what, prepare, status, printed) => {
    using one = new Sandbox();
    await prepare(one);
    await one.ends(status, "create H", printed);
  });

  test("names a missing program and its package (69)", async () => {
    using one = new Sandbox();
    one.without("qemu-img", "xorriso", "genisoimage", "mkisofs");
    await one.ends(69, "create G", "qemu-img", "qemu-utils");
    one.write("ud", "#cloud-config\n");
    one.program("qemu-img", "exit 1");
    await one.ends(69, "create G --user-data=ud", "xorriso");
    await one.ends(74, "create G", "qemu-img exited with status 1");
    expect(readdirSync(one.host)).toEqual(["ud"]);
  });

  test("refuses a private key (78)", async () => {
    using one = new Sandbox();
    one.configure(`SSHKEYS=(${one.write("key", "-----BEGIN OPENSSH PRIVATE KEY-----")})\n`);
    await one.ends(78, ["create", "G", "--from", image(one, "a.qcow2"), "--cloud-init"], "private key");
    expect(existsSync(one.path(".work"))).toBe(false);
  });

  test.each<[words: string, status: number]>([
    ["echo 'No space left on device' >&2; exit 1", 73],
    ["kill -9 $$", 74],
  ])("a failing qemu-img (%s) leaves nothing behind → %i", async (words, status) => {
    using one = new Sandbox();
    one.program("qemu-img", words);
    await one.ends(status, "create G");
    expect([...readdirSync(one.host), ...readdirSync(one.tmp)]).toEqual([]);
  });
});
