import { describe, expect, test } from "bun:test";
import {
  chownSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { findIoUringProblem } from "../../src/process/libc.ts";
import { isUuid } from "../../src/lib/uuid.ts";
import { updateRun } from "../../src/store/mark.ts";
import { created as createdWith } from "../fixtures/built.ts";
import { testWith } from "../fixtures/needs.ts";
import type { FakeQemu } from "../fixtures/qemu/fake-qemu.ts";
import { Sandbox } from "../fixtures/sandbox.ts";
import { qemuImg } from "./snapshots.ts";

const CONF = "MEMORY=64M\nCORES=1\nDISKS=(AHCI=1M)\n";

const created = (conf = `${CONF}PORT=\n`, ...words: string[]): Promise<Sandbox> =>
  createdWith(conf, ...words);

/** Firmware variables of this length. */
function variables(bytes: number): Buffer<ArrayBuffer> {
  const content = Buffer.alloc(bytes);
  content.writeBigUInt64LE(BigInt(bytes), 32);
  content.write("_FVH", 40);
  return content;
}

/** A loopback port that the test's server listens on. */
async function takenPort(): Promise<{ port: number } & Disposable> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return { port: (server.address() as AddressInfo).port, [Symbol.dispose]: () => void server.close() };
}

/** A VM with firmware files of the user. */
async function withFirmware(): Promise<Sandbox> {
  const box = new Sandbox(`${CONF}PORT=\n`);
  const [code, vars] = ["code", "vars"].map((name) => box.write(join(box.top, name), variables(4096)));
  box.configure(`UEFI=1\nOVMF_CODE=${code}\nOVMF_VARS=${vars}\n`);
  await box.ok("create", "G");
  return box;
}

/** The fields in an argument list. */
const smbios = (argv: readonly string[]): string[] => argv.filter((_word, at) => argv[at - 1] === "-smbios");

/** A qemu that can use io_uring. */
function withIoUring(box: Sandbox): void {
  const probe = join(box.bin, "probe.json");
  writeFileSync(probe, `${readFileSync(probe, "utf8")}{"return": {}, "id": 5}\n`);
}

const aioOf = (qemu: FakeQemu, node = "disk0"): unknown =>
  JSON.parse(qemu.option("-blockdev", node)!).file.aio;

/** The generation ID that the guest of the last qemu sees. */
async function generation(box: Sandbox): Promise<string | undefined> {
  const qemu = await box.running();
  await box.ok("stop");
  return /guid=([^,]+)/.exec(qemu.option("-device", "vmgenid") ?? "")?.[1];
}

describe("the generation ID", () => {
  testWith("qemu-img")("stays at restarts, and is another one after a restore and in a clone", async () => {
    using box = await created();
    const first = await generation(box);
    expect(isUuid(first)).toBe(true);
    expect(await generation(box)).toBe(first);
    await box.ok("backup", "S");
    expect(await generation(box)).toBe(first);
    await box.ok("restore", "S");
    const restored = await generation(box);
    expect(isUuid(restored)).toBe(true);
    expect(restored).not.toBe(first);
    await box.ok("clone", "../copy");
    await box.ok("-d", "../copy", "run", "--detach");
    const copied = box.qemus.at(-1)!.option("-device", "vmgenid");
    expect(copied).toContain("guid=");
    expect(copied).not.toContain(restored!);
  });

  test("VMs of earlier versions have none until told otherwise", async () => {
    using box = await created();
    await box.ok("set", "LAYOUT=1");
    expect(await generation(box)).toBeUndefined();
    const { stderr } = await box.ok("set", "LAYOUT=2");
    expect(stderr).not.toContain("warning");
    expect(isUuid(await generation(box))).toBe(true);
  });
});

describe.if(findIoUringProblem() === undefined)("DISK_AIO", () => {
  test("io_uring, once set; threads from the next run", async () => {
    using box = await created();
    withIoUring(box);
    await box.ok("set", "DISK_AIO=io_uring");
    const qemu = await box.running();
    expect(aioOf(qemu)).toBe("io_uring");
    await box.ends(0, "disk add VIRT=1M", "attached to the running guest");
    expect((qemu.requests.find(({ execute }) => execute === "blockdev-add") as any).arguments.file.aio).toBe(
      "io_uring",
    );
    await box.ok("set", "DISK_AIO=threads");
    expect(await box.json("status")).toMatchObject({
      diskAio: "io_uring",
      nextRun: { DISK_AIO: "threads" },
    });
    await box.ends(0, "status", /^disk I\/O: +io_uring$/m);
    await box.ok("restart");
    const next = box.qemus.at(-1)!;
    expect([aioOf(next), aioOf(next, "disk1")]).toEqual([undefined, undefined]);
    expect((await box.json("status")).diskAio).toBe("threads");
    await box.ok("stop");
    expect((await box.json("status")).diskAio).toBeUndefined();
  });

  test("disks that differ: status shows how each is read and written", async () => {
    using box = await created();
    withIoUring(box);
    await box.ok("set", "DISK_AIO=io_uring");
    await box.running();
    await box.ok("disk", "add", "VIRT=1M");
    expect((await box.json("status")).disks.map((disk: any) => disk.aio)).toEqual(["io_uring", "io_uring"]);
    expect((await box.ok("status")).stdout).not.toContain("I/O: io_uring,");
    updateRun(box.work, { diskAios: { 0: "io_uring", 1: "native" } });
    const status = await box.json("status");
    expect(status.disks.map((disk: any) => disk.aio)).toEqual(["io_uring", "native"]);
    expect(status.diskAio).toBeUndefined();
    await box.ends(0, "status", /^disk: +0 .*, I\/O: io_uring$/m, /^disk: +1 .*, I\/O: native$/m);
    expect((await box.ok("status")).stdout).not.toContain("disk I/O");
    // As recorded by earlier versions.
    updateRun(box.work, { diskAios: undefined, diskAio: "threads" });
    expect((await box.json("status")).diskAio).toBe("threads");
  });

  test("an image outside WORKDIR, too", async () => {
    using box = await created();
    withIoUring(box);
    await box.ok("set", "DISK_AIO=io_uring");
    const image = box.write(join(box.top, "raw"), Buffer.alloc(1 << 20));
    await box.running({}, "-i", `SCSI=raw=${image}`);
    const { images, diskAio } = await box.json("status");
    expect(images).toMatchObject([{ image, aio: "io_uring" }]);
    expect(diskAio).toBe("io_uring");
  });

  test("io_uring with a qemu that lacks it is refused (69), and doctor reports it", async () => {
    using box = await created();
    await box.ok("set", "DISK_AIO=io_uring");
    await box.ends(69, "run --detach", "DISK_AIO=io_uring", "DISK_AIO=auto");
    await box.ends(69, "doctor", /^disk-aio +missing +needed +speed of disks +this qemu/m);
  });

  test.each([
    ["", "ok", "(threads|native)"],
    ["DISK_AIO=threads\n", "ok", "threads"],
  ])("doctor with %j: %s", async (conf, state, detail) => {
    using box = new Sandbox(`${CONF}PORT=\n${conf}`);
    const { stdout, stderr } = await box.vm("doctor");
    expect(stdout + stderr).toMatch(
      new RegExp(`^disk-aio +${state} +optional +speed of disks +${detail}`, "m"),
    );
  });
});

test.each([
  ["", "optional", "optional"],
  ["TPM=2.0\n", "needed", "optional"],
  ["UEFI=1\n", "optional", "needed"],
])("doctor with %j: tpm %s, uefi boot %s, as the VM needs them", async (conf, tpm, uefi) => {
  using box = new Sandbox(`${CONF}PORT=\n${conf}`);
  const { checks } = JSON.parse((await box.vm("doctor", "--json")).stdout) as { checks: any[] };
  const needOf = (name: string): string =>
    checks.find((check) => check.name === name)?.needed ? "needed" : "optional";
  expect([needOf("tpm"), needOf("swtpm")]).toEqual([tpm, tpm]);
  expect(checks.some(({ name }) => name === "uefi boot") ? needOf("uefi boot") : uefi).toBe(uefi);
});

describe("SMBIOS", () => {
  test("is kept by create; an option adds to it, an empty one clears it", async () => {
    using box = new Sandbox(`${CONF}PORT=\n`);
    await box.ok("--smbios=type=1,manufacturer=A,, B", "create", "G");
    expect(smbios((await box.running()).argv)).toEqual(["type=1,manufacturer=A,, B"]);
    await box.ok("stop");
    const typed = await box.running({}, "--smbios=type=1,serial=7");
    expect(smbios(typed.argv)).toEqual(["type=1,manufacturer=A,, B", "type=1,serial=7"]);
    await box.ok("restart");
    expect(smbios(box.qemus.at(-1)!.argv)).toEqual(smbios(typed.argv));
    await box.ok("stop");
    expect(smbios((await box.running({}, "--smbios=")).argv)).toEqual([]);
    await box.ok("stop");
  });

  test.each<[option: string, status: number, printed: string]>([
    ["--smbios=file=/etc/passwd", 64, "type=N"],
    ["--smbios=type=11,path=/etc/passwd", 64, "the fields value"],
    ["--arch=ppc64le", 69, "no SMBIOS"],
  ])("%s → %i", async (option, status, printed) => {
    using box = new Sandbox(`${CONF}PORT=\n`);
    await box.ends(status, [option, "--smbios=type=1,serial=7", "create", "G"], printed);
  });

  test("in a guest.env, host files are refused (78)", async () => {
    using box = await created();
    writeFileSync(
      join(box.work, "guest.env"),
      'SMBIOS="type=11,path=/etc/passwd"\nIMAGES="AHCI=disk-0.img"\n',
    );
    await box.ends(78, "run", "SMBIOS");
    expect(box.qemus).toEqual([]);
  });
});

describe("UEFI", () => {
  test("each VM has its own variables, also one created for BIOS", async () => {
    using box = await withFirmware();
    const path = join(box.work, "efivars.bin");
    expect(readFileSync(path)).toEqual(variables(4096));
    rmSync(path);
    const { argv } = await box.running();
    expect(argv.join(" ")).toContain(path);
    expect(argv.join(" ")).toContain(join(box.top, "code"));
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await box.ok("stop");
    await box.ok("backup");
    writeFileSync(path, variables(4096).fill(7, 100));
    await box.ok("restore");
    expect(readFileSync(join(box.work, "efivars.bin"))).toEqual(variables(4096));
    expect((await box.json("status")).uefi).toBe(true);
  });

  test("backup warns of missing variables, of a VM that is running or off", async () => {
    using box = await withFirmware();
    expect((await box.ends(0, "backup")).stderr).not.toContain("UEFI variables");
    await box.running();
    const path = join(box.work, "efivars.bin");
    rmSync(path);
    expect((await box.json("status")).platformKey).toBeNull();
    const warning = `the snapshot has no UEFI variables: ${path} is missing`;
    await box.ends(0, "backup", "warning:", warning);
    await box.ok("stop");
    await box.ends(0, "backup", "warning:", warning);
  });

  test.each<[what: string, spoil: (box: Sandbox) => unknown, status: number, printed: string]>([
    [
      "variables cut off",
      (box) => writeFileSync(join(box.work, "efivars.bin"), variables(4096).subarray(0, 99)),
      74,
      "efivars.bin",
    ],
    [
      "variables of another size",
      (box) => writeFileSync(join(box.work, "efivars.bin"), variables(8192)),
      69,
      "mv ",
    ],
    [
      "no firmware file",
      (box) => (rmSync(join(box.work, "efivars.bin")), rmSync(join(box.top, "code"))),
      66,
      "code",
    ],
    ["one of two", (box) => box.configure("OVMF_VARS=\n"), 78, "together"],
  ])("%s", async (_what, spoil, status, printed) => {
    using box = await withFirmware();
    spoil(box);
    await box.ends(status, "run", printed);
    expect(box.qemus).toEqual([]);
  });
});

describe("images", () => {
  test("without a format keep the one of their first use", async () => {
    using box = await created();
    const image = join(box.top, "data");
    qemuImg("create", "-q", "-f", "raw", image, "1M");
    box.write(join(box.work, "guest.env"), `GUESTNAME=G\nIMAGES=(AHCI=disk-0.img VIRT=${image})\n`);
    expect((await box.running()).argv.join(" ")).toContain('"driver":"raw"');
    await box.ok("stop");
    expect((await box.json("config", "IMAGE_FORMATS")).IMAGE_FORMATS.raw).toEqual([`raw=${image}`]);
    // A guest can write that header: it must not be trusted.
    qemuImg("create", "-q", "-f", "qcow2", image, "1M");
    box.qemu = {};
    await box.ends(0, "run -b", "raw", "qcow2");
    expect(box.qemus.at(-1)!.argv.join(" ")).toContain('"driver":"raw"');
    await box.ok("stop");
    box.write(
      join(box.work, "guest.env"),
      `IMAGES=(AHCI=disk-0.img VIRT=${image})\nIMAGE_FORMATS=(qcow2=${image})\n`,
    );
    qemuImg("create", "-q", "-f", "vmdk", image, "1M");
    await box.ends(78, "run -b", "qcow2", "vmdk");
  });

  test.each<[title: string, words: (box: Sandbox) => string[], status: number, printed: string]>([
    [
      "one that may refer to other files",
      (box) => {
        qemuImg("create", "-q", "-f", "vmdk", join(box.top, "x"), "1M");
        return ["-i", `VIRT=${join(box.top, "x")}`, "run"];
      },
      78,
      "vmdk",
    ],
    ["an archive", (box) => ["-i", `VIRT=${box.write("x.gz", Bun.gzipSync("x"))}`, "run"], 74, "=raw="],
    ["a missing one", (box) => ["-i", `VIRT=${join(box.top, "nothing")}`, "run"], 66, "nothing"],
    [
      "one named twice",
      (box) => ["-i", `VIRT=raw=${box.write("x", "0123")}`, "-i", `SCSI=raw=${box.path("x")}`, "run", "-b"],
      0,
      "",
    ],
  ])("%s", async (_title, words, status, printed) => {
    using box = await created();
    await box.ends(status, words(box), printed);
  });

  test("a working disk that refers to other files is refused (74)", async () => {
    using box = await created();
    const disk = join(box.work, "disk-0.img");
    qemuImg("create", "-q", "-f", "raw", join(box.top, "base"), "1M");
    qemuImg("create", "-q", "-f", "qcow2", "-F", "raw", "-b", join(box.top, "base"), disk, "1M");
    for (const line of ["run", "backup", "job x"])
      expect([66, 74]).toContain((await box.vm(...line.split(" "))).status);
    unlinkSync(disk);
    symlinkSync("/etc/passwd", disk);
    await box.ends(74, "run", "disk-0.img");
    expect(box.qemus).toEqual([]);
  });
});

describe("the screen", () => {
  test("uses the next free port by default, and refuses a chosen port that is taken (75)", async () => {
    using box = await created(CONF);
    using taken = await takenPort();
    await box.ends(75, `-p ${taken.port} run`, String(taken.port), String(process.pid));
    const qemu = await box.running();
    expect(qemu.option("-spice")).toMatch(/port=59\d\d/);
    await box.ends(0, "view", "remote-viewer");
  });

  test.each<[conf: string, line: string, status: number, printed: string]>([
    ["DISPLAY_PROTOCOL=vnc\n", "-p 80 run", 64, "5900"],
    ["DISPLAY_PROTOCOL=vnc\nPORT=80\n", "config PORT", 0, "PORT=80"],
    ["SPICE_TLS_DIR=tls\n", "run", 66, "server-key.pem"],
    ["SPICE_TICKETING=off\nHOST=0.0.0.0\n", "-p 5990 run", 78, "SPICE_TICKETING"],
    ["DISPLAY_PROTOCOL=none\n", "run -b", 0, "without a display"],
    ["DISPLAY_PROTOCOL=vnc\nSPICE_PASSWORD=longerthan8\n", "run -b", 0, "8 characters"],
    ["DISPLAY_PROTOCOL=vnc\nSPICE_SOCKET=1\n", "run -b", 0, "vnc.sock"],
    ["DISPLAY_PROTOCOL=vnc\nSPICE_TLS_DIR=tls\n", "run -b", 0, "SPICE only"],
  ])("%j: %s → %i", async (conf, line, status, printed) => {
    using box = await created(CONF + conf);
    await box.ends(status, line, printed);
  });

  testWith("openssl")(
    "encrypted: the connection file has the CA and the subject of the certificate",
    async () => {
      using box = await created(`${CONF}SPICE_TLS_DIR=tls\n`);
      mkdirSync(box.path("tls"));
      const made = Bun.spawnSync(
        [
          "openssl",
          "req",
          "-x509",
          "-newkey",
          "ec",
          "-pkeyopt",
          "ec_paramgen_curve:P-256",
          "-nodes",
          "-days",
          "1",
          "-subj",
          "/O=Example/CN=host",
          "-keyout",
          "server-key.pem",
          "-out",
          "server-cert.pem",
        ],
        { cwd: box.path("tls") },
      );
      expect(made.exitCode).toBe(0);
      writeFileSync(box.path("tls/ca-cert.pem"), readFileSync(box.path("tls/server-cert.pem")));
      const qemu = await box.running();
      expect(qemu.option("-spice")).toContain("tls-port=");
      const viewer = readFileSync(join(box.work, "spice.vv"), "utf8");
      expect(viewer).toContain("O=Example,CN=host");
      await box.ok("stop");
      writeFileSync(box.path("tls/server-cert.pem"), "nothing");
      await box.ends(78, "run", "certificate");
    },
  );

  test.each<[what: string, missing: string, line: string]>([
    ["SPICE", '"option": "spice"', "run"],
    ["VNC", '"option": "vnc"', "run"],
  ])("a qemu without %s (69)", async (what, missing, line) => {
    using box = await created(`${CONF}DISPLAY_PROTOCOL=${what.toLowerCase()}\n`);
    const probe = join(box.bin, "probe.json");
    writeFileSync(
      probe,
      readFileSync(probe, "utf8")
        .split("\n")
        .filter((row) => !row.includes(missing))
        .join("\n"),
    );
    await box.ends(69, line, what);
  });
});

/** Removes a device from those of the fake qemu. */
const without9p = (box: Sandbox): void => {
  const probe = join(box.bin, "probe.json");
  writeFileSync(probe, readFileSync(probe, "utf8").replace("virtio-9p-pci", "virtio-9p-gone"));
};

describe("shares", () => {
  test.each<
    [title: string, prepare: (box: Sandbox) => unknown, line: string, status: number, printed: string]
  >([
    ["a directory", (box) => mkdirSync(box.path("given")), "--share=x:rw:given run -b", 0, ""],
    ["no such directory", () => {}, "--share=x:nowhere run", 66, "nowhere"],
    ["a file", (box) => box.write("file", ""), "--share=x:file run", 66, "file"],
    ["no 9p: omits the usual shares", without9p, "run -b", 0, "9p"],
    [
      "no 9p, and one requested",
      (box) => (without9p(box), mkdirSync(box.path("given"))),
      "--share=x:given run",
      69,
      "9p",
    ],
    ["no 9p, and a job", (box) => (without9p(box), box.write("x.job", "true")), "job x", 66, "rescue"],
  ])("%s", async (_title, prepare, line, status, printed) => {
    using box = await created();
    prepare(box);
    await box.ends(status, line, printed);
    const shared = box.qemus.map(({ argv }) => argv.some((word) => word.includes(box.path("given"))));
    expect(shared).toEqual(status === 0 ? [line.includes("given")] : []);
  });
});

describe("arguments of the user", () => {
  test.each<[text: string, status: number, printed: string]>([
    ["-device pvpanic # a remark\n", 0, ""],
    ["-device 'unfinished\n", 78, "vm.defaults"],
    ["-device $(rm -rf /)\n", 78, "vm.defaults"],
  ])("vm.defaults with %j → %i", async (text, status, printed) => {
    using box = await created();
    box.write("vm.defaults", text);
    await box.ends(status, "run -b", printed);
    expect(box.qemus.map((qemu) => qemu.option("-device", "pvpanic"))).toEqual(
      status === 0 ? ["pvpanic"] : [],
    );
  });
});

test("refuses to run a VM as another machine family (64)", async () => {
  using box = await created();
  await box.ends(64, "--arch=aarch64 run", "x86_64");
});

test("refuses PROFILES and LIBEXEC as a VM's directory (64)", async () => {
  using box = new Sandbox();
  box.configure(`PROFILES=${box.host}\n`);
  await box.ends(64, "create G", "PROFILES");
});

test.skipIf(process.getuid!() !== 0)(
  "another user's VM is readable, but cannot be changed (73; needs root)",
  async () => {
    using box = await created();
    await box.ok("backup");
    for (const path of [box.host, join(box.host, ".work"), box.work]) chownSync(path, 12_345, 12_345);
    for (const line of ["run", "backup", "restore", "destroy", "stop", "job x", "prune --keep-last=1"])
      await box.ends(73, line, "12345");
    await box.ends(0, "snapshots", "S0");
    await box.ends(0, "verify", "S0");
  },
);
