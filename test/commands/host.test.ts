import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { created } from "../fixtures/built.ts";
import { Sandbox } from "../fixtures/sandbox.ts";
import { qemuImg, written } from "./snapshots.ts";

/** A directory with a disk and settings, but without the program's mark. */
function unmarked(): Sandbox {
  const box = new Sandbox();
  box.write("guest.env", "GUESTNAME=Old\nIMAGES=(AHCI=disk-0.img)\n");
  qemuImg("create", "-q", "-f", "qcow2", box.path("disk-0.img"), "1M");
  return box;
}

/** Puts a fake systemd on PATH. @returns its command lines */
function withSystemd(box: Sandbox): () => string[] {
  const calls = join(box.top, "calls");
  box.program("systemctl", `echo "$@" >>${calls}`);
  box.program("systemd-analyze", "case $* in *nonsense*) exit 1 ;; esac");
  return () => (existsSync(calls) ? readFileSync(calls, "utf8").trim().split("\n") : []);
}

/** The arguments of the program, one per line. */
const told = (box: Sandbox): string[] => readFileSync(join(box.top, "told"), "utf8").trim().split("|");

describe("list and status", () => {
  test("of all VMs: those below PROFILES, others of this user, and broken ones with their error", async () => {
    using box = await created();
    const [second, broken] = ["second", "broken"].map((name) => join(box.home, "vm", name)) as [
      string,
      string,
    ];
    mkdirSync(second, { recursive: true, mode: 0o700 });
    await box.ends(0, ["-d", second, "create", "Second"]);
    box.write(join(broken, "guest.env"), "MEMORY=lots\n");
    box.write(join(box.home, "vm/rescue-x86_64/guest.env"), "RESCUE_KERNEL=vmlinuz\n");
    const listed = await box.json("list");
    expect(listed.map(({ name, state }: any) => [name, state])).toEqual(
      expect.arrayContaining([
        ["G", "created"],
        ["Second", "created"],
        ["broken", "broken"],
      ]),
    );
    expect(listed).toHaveLength(3);
    const { stdout } = await box.ends(0, "list", "broken", "MEMORY");
    expect(stdout.split("\n").filter(Boolean).length).toBeGreaterThanOrEqual(4);
    expect((await box.ok("list", "--quiet")).stdout.split("\n").filter(Boolean).toSorted()).toEqual(
      [box.host, "broken", "second"].toSorted(),
    );
  });

  test.each<[what: string, spoil: (box: Sandbox) => unknown, status: number, printed: string]>([
    [
      "settings",
      (box) => writeFileSync(join(box.work, "guest.env"), "IMAGES=(AHCI=disk-0.img)\nMEMORY=lots\n"),
      78,
      "MEMORY",
    ],
    ["a disk", (box) => truncateSync(join(box.work, "disk-0.img"), 100), 74, "disk-0.img is damaged"],
    ["snapshots", (box) => symlinkSync("/nowhere", box.path("backups")), 74, "/nowhere"],
  ])(
    "status of a VM, %s unreadable, shows why, and is not 0; list is",
    async (_what, spoil, status, printed) => {
      using box = new Sandbox();
      await box.ok("create", "G");
      await box.ok("status");
      spoil(box);
      const { stdout, stderr } = await box.ends(status, "status", /^error: /m, printed);
      expect(stdout).toContain(printed);
      expect(stderr).not.toContain(printed);
      expect(JSON.parse((await box.ends(status, "status --json")).stdout).error).toContain(printed);
      await box.ok("list");
    },
  );

  test.each<[line: string, status: number, printed: string]>([
    ["status", 66, "create"],
    ["list", 0, "create"],
    ["identity", 66, "create"],
    ["adopt", 66, ""],
    ["timer", 66, "create"],
  ])("without a VM: %s → %i", async (line, status, printed) => {
    using box = new Sandbox();
    await box.ends(status, line, printed);
    expect(readdirSync(box.host)).toEqual([]);
  });

  test("shows the access outside of the VM from its guest.env", async () => {
    using box = await created();
    writeFileSync(
      join(box.work, "guest.env"),
      readFileSync(join(box.work, "guest.env"), "utf8") + "SHARES=('x:rw:/etc')\n",
    );
    box.write("a.job", "true\n");
    box.write("vm.defaults", "-device pvpanic\n");
    const { reaches } = await box.json("status");
    expect(reaches).toEqual(
      expect.arrayContaining([
        { kind: "share", what: "/etc", writable: true },
        { kind: "job", what: box.path("a.job") },
        { kind: "arguments", what: `${box.path("vm.defaults")} (2 arguments for qemu)` },
      ]),
    );
    await box.ends(0, "status", "share /etc, writable", "2 arguments");
    const qemu = await box.running();
    expect(qemu.option("-device", "pvpanic")).toBe("pvpanic");
  });
});

describe("identity", () => {
  test("is shown, renewed, and stored in snapshots", async () => {
    using box = await created();
    await box.ok("backup");
    const { uuid, former, directory } = await box.json("identity");
    expect([former, directory]).toEqual([[], box.host]);
    await box.ends(0, "identity --new", `former ${uuid}`);
    const renewed = await box.json("identity");
    expect(renewed.former).toEqual([uuid]);
    expect((await box.json("config", "UUID")).UUID.value).toBe(renewed.uuid);
    // The snapshot has the former UUID.
    await box.ok("restore");
    expect(await box.json("identity")).toEqual(renewed);
  });

  test("warns about a copy of the VM", async () => {
    using box = await written();
    await box.ok("@backup", "@destroy");
    const copy = join(box.top, "copy");
    Bun.spawnSync(["cp", "-a", box.host, copy]);
    await box.ends(0, ["-d", copy, "restore"], "UUID");
    await box.ok("-d", copy, "identity", "--new");
    expect((await box.json("-d", copy, "identity")).former).toEqual([(await box.json("identity")).uuid]);
  });
});

describe("adopt", () => {
  test("adopts disks in HOSTDIR, and shows that beforehand", async () => {
    using box = unmarked();
    await box.ends(73, "run", "adopt");
    await box.ends(0, "adopt --dry-run", "disk-0.img");
    expect(existsSync(box.path(".vm.json"))).toBe(false);
    await box.ends(0, "adopt", "disk-0.img");
    expect(box.work).toBe(box.host);
    await box.ends(0, "adopt", "already");
    await box.running();
    await box.ok("stop");
  });

  test("adopts working files of the earlier program from .work", async () => {
    using box = await created();
    rmSync(join(box.work, ".vm.json"));
    await box.ends(73, "run", "adopt").catch(() => box.vm("run"));
    await box.ends(0, "adopt", "disk-0.img");
    await box.ok("backup");
  });

  test.each<[what: string, spoil: (box: Sandbox) => unknown, status: number, printed: string]>([
    ["a missing disk", (box) => rmSync(box.path("disk-0.img")), 66, ""],
    ["a raw disk", (box) => writeFileSync(box.path("disk-0.img"), "\0".repeat(4096)), 74, "qcow2"],
    [
      "a disk with a backing file",
      (box) => {
        renameSync(box.path("disk-0.img"), join(box.top, "base"));
        qemuImg(
          "create",
          "-q",
          "-f",
          "qcow2",
          "-F",
          "qcow2",
          "-b",
          join(box.top, "base"),
          box.path("disk-0.img"),
        );
      },
      74,
      "backing file",
    ],
    ["no settings", (box) => rmSync(box.path("guest.env")), 74, "guest.env"],
    ["a .work that is a directory", (box) => mkdirSync(box.path(".work")), 74, ".work"],
    ["a symlink to a file", (box) => symlinkSync("guest.env", box.path(".work")), 74, "directory"],
    ["files of an interrupted command", (box) => mkdirSync(box.path(".vm-ready")), 74, ".vm-ready"],
    [
      "a missing second disk",
      (box) => box.write("guest.env", "IMAGES=(AHCI=disk-0.img AHCI=disk-1.img)\n"),
      66,
      "disk-1.img",
    ],
    [
      "a damaged disk",
      (box) => {
        const path = box.path("disk-0.img");
        const bytes = readFileSync(path);
        // The offset of the L1 table is beyond the end of the file.
        bytes.writeBigUInt64BE(0x8000000010000000n, Number(bytes.readBigUInt64BE(40)));
        writeFileSync(path, bytes);
      },
      74,
      "repair",
    ],
  ])("refuses %s", async (_what, spoil, status, printed) => {
    using box = unmarked();
    spoil(box);
    await box.ends(status, "adopt", printed);
    expect(existsSync(box.path(".vm.json"))).toBe(false);
  });
});

describe("config", () => {
  test("prints each value with its origin", async () => {
    using box = await created();
    box.environment.SPICE_PASSWORD = "secret";
    const config = await box.json("--cores=3", "config");
    expect(config.CORES).toMatchObject({ value: 3, origin: { kind: "option" } });
    expect(config.MEMORY.origin).toMatchObject({ kind: "file", file: join(box.work, "guest.env") });
    expect(config.STOP_TIMEOUT.origin.kind).toBe("default");
    expect(config.SPICE_PASSWORD).toEqual({ set: true, origin: { kind: "environment" } });
    await box.ends(0, "config MEMORY PORT", "MEMORY=", "guest.env");
    const { stdout } = await box.ok("config", "--example");
    expect(stdout).toContain("#MEMORY=");
  });

  test.each<[line: string, status: number, printed: string]>([
    ["config MEMROY", 64, "MEMORY"],
    ["config --example MEMORY", 64, "--example"],
    ["config", 78, "STOP_TIMEOUT"],
    ["config CORES", 78, "CORES="],
    ["backup", 78, "STOP_TIMEOUT"],
    ["-h", 0, "STOP_TIMEOUT"],
    ["destroy", 0, ""],
  ])("with an invalid setting: %s → %i", async (line, status, printed) => {
    using box = await created();
    box.configure("STOP_TIMEOUT=soon\n");
    await box.ends(status, line, printed);
  });

  test.each<[conf: string, line: string, status: number, printed: string]>([
    ["if true; then\nCORES=4\nfi\n", "config CORES", 0, "CORES=1"],
    ["if true; then\nSTOP_TIMEOUT=4\nfi\n", "config STOP_TIMEOUT", 0, "STOP_TIMEOUT=4"],
    ["exit 3\n", "config", 78, "vm.conf"],
    ["mine=1\nMEMROY=4G\n", "config", 0, "vm.conf:7: MEMROY is no setting; did you mean MEMORY?"],
    ["PROFILES=/nowhere\nISO=@MEDIA@/x.iso\n", "run -b", 69, "check-media"],
  ])("%j: %s", async (conf, line, status, printed) => {
    using box = await created();
    box.configure(conf);
    if (line.startsWith("run")) rmSync(join(box.work, "FIRSTTIME"));
    if (line.startsWith("run"))
      writeFileSync(join(box.work, "guest.env"), "IMAGES=(AHCI=disk-0.img VIRT=@MEDIA@/x)\n");
    await box.ends(status, line, printed);
  });

  test("runs check-media, and reports missing media", async () => {
    using box = await created();
    mkdirSync(join(box.top, "media/iso"), { recursive: true });
    writeFileSync(join(box.top, "media/iso/x.iso"), "\0".repeat(65536));
    box.configure("MEDIA_STORAGE=/iso\n");
    box.program("check-media", `MEDIA=${box.top}/media`);
    const qemu = await box.running({}, "x.iso");
    expect(qemu.argv.join(" ")).toContain(`${box.top}/media/iso/x.iso`);
    await box.ok("stop");
    box.program("check-media", "echo none >&2; exit 1");
    await box.ends(66, "run x.iso", "check-media");
  });
});

describe("timer", () => {
  test("install and remove, for the user", async () => {
    using box = await created();
    const calls = withSystemd(box);
    await box.ends(0, "timer --user --install --on-calendar=daily -- backup --quiet");
    const units = join(box.home, ".config/systemd/user");
    const [service = "", timer = ""] = readdirSync(units).toSorted();
    expect([service.endsWith(".service"), timer.endsWith(".timer")]).toEqual([true, true]);
    expect(statSync(join(units, timer)).mode & 0o777).toBe(0o644);
    expect(readFileSync(join(units, timer), "utf8")).toContain("OnCalendar=daily");
    expect(readFileSync(join(units, service), "utf8")).toContain(`"-d" "${box.host}" "backup" "--quiet"`);
    expect(calls()).toEqual(["--user daemon-reload", `--user enable --now ${timer}`]);
    await box.ends(0, "timer --user --remove -- backup --quiet");
    expect(readdirSync(units)).toEqual([]);
    await box.ends(66, "timer --user --remove");
  });

  test("print and cron", async () => {
    using box = await created();
    withSystemd(box);
    await box.ends(0, "timer --system", "/etc/systemd/system/", "OnCalendar=hourly", `TMPDIR=${box.tmp}`);
    await box.ends(0, "timer --cron --on-calendar=daily", /^\d+ \d+ \* \* \* TMPDIR=.* backup --quiet\n/m);
  });

  test.each<[line: string, status: number, printed: string]>([
    ["timer --install --remove", 64, "--remove"],
    ["timer --on-calendar=", 64, "--on-calendar"],
    ["timer --cron --on-calendar=Mon..Fri", 64, "Mon..Fri"],
    ["timer --on-calendar=nonsense", 64, "nonsense"],
    ["timer -- bakcup", 64, "backup"],
    ["timer -- backup --format=zip", 64, "gz"],
  ])("%s → %i", async (line, status, printed) => {
    using box = await created();
    withSystemd(box);
    await box.ends(status, line, printed);
  });

  test("a failing systemd leaves no units", async () => {
    using box = await created();
    withSystemd(box);
    box.program("systemctl", "exit 1");
    const { status } = await box.vm("timer", "--user", "--install");
    expect([69, 74]).toContain(status);
    expect(readdirSync(join(box.home, ".config/systemd/user"))).toEqual([]);
  });
});

describe("SNAPSHOT_NOTIFY", () => {
  test("runs with the outcome of a backup, also of a failed one", async () => {
    using box = await created();
    box.program("tell", `echo "$VM_OUTCOME|$VM_NAME|$VM_SNAPSHOT|$VM_STATUS|$VM_HOSTDIR" >${box.top}/told`);
    box.configure("SNAPSHOT_NOTIFY=tell\n");
    await box.ok("backup");
    expect(told(box)).toEqual(["ok", "G", "S0", "0", box.host]);
    await box.ends(73, "backup S0");
    expect(told(box)).toEqual(["failed", "G", "S0", "73", box.host]);
    // A VM's own settings cannot start a program, but can disable it.
    rmSync(join(box.top, "told"));
    const env = join(box.work, "guest.env");
    writeFileSync(env, `${readFileSync(env, "utf8")}SNAPSHOT_NOTIFY=\n`);
    await box.ok("backup");
    expect(existsSync(join(box.top, "told"))).toBe(false);
  });

  test.each<[title: string, prepare: (box: Sandbox) => unknown, printed: string]>([
    ["does not exist", () => {}, "not found"],
    ["fails", (box) => box.program("tell", "exit 9"), "status 9"],
    ["is writable by other users", (box) => chmodSync(box.program("tell", "true"), 0o777), "refusing to run"],
  ])("a program that %s does not fail the backup", async (_title, prepare, printed) => {
    using box = await created("MEMORY=64M\nPORT=\nDISKS=(AHCI=1M)\nSNAPSHOT_NOTIFY=tell\n");
    prepare(box);
    await box.ends(0, "backup", printed);
  });

  test("an unattended backup writes to the journal", async () => {
    using box = await created();
    box.program("logger", `echo "$@" >>${box.top}/logged; cat >>${box.top}/logged`);
    await box.ok("backup");
    await box.ends(73, "backup S0");
    const logged = readFileSync(join(box.top, "logged"), "utf8");
    expect(logged).toContain("S0");
    expect(logged).toContain("user.err");
  });
});

describe("doctor", () => {
  test("lists what is present, and what is missing (69)", async () => {
    using box = await created();
    box.program("pigz", "true");
    const { checks, host } = JSON.parse((await box.vm("doctor", "--json")).stdout);
    expect(host).toHaveProperty("name");
    const stateOf = (name: string): string => checks.find((check: any) => check.name === name)?.state;
    expect(stateOf("qemu-system-x86_64")).toBe("ok");
    expect(stateOf("9p")).toBe("ok");
    // The fake qemu has hardly any devices.
    expect(stateOf("virtio")).toBe("missing");
    expect(stateOf("pigz")).toBe("ok");
    const { bavail, bsize } = statfsSync(box.tmp);
    expect(stateOf("tmpdir")).toBe(bavail * bsize < 1 << 30 ? "limited" : "ok");
    await box.ends(69, "doctor", "virtio", /rescue .*missing/, "WHAT");
    await box.ends(64, "doctor --json --report", "--report");
  });

  test.each<[title: string, prepare: (box: Sandbox) => unknown, name: string, state: string]>([
    ["no qemu-img", (box) => box.without("qemu-img"), "qemu-img", "missing"],
    ["a misspelt setting", (box) => box.configure("MEMROY=4G\n"), "settings", "limited"],
    ["no sha256sum", (box) => box.without("sha256sum"), "coreutils", "missing"],
    [
      "an old qemu",
      (box) =>
        box.write(
          join(box.bin, "probe.json"),
          readFileSync(join(box.bin, "probe.json"), "utf8").replace('"major": 7', '"major": 6'),
        ),
      "qemu-system-x86_64",
      "missing",
    ],
    [
      "a qemu that fails",
      (box) => box.program("qemu-system-x86_64", "exit 1"),
      "qemu-system-x86_64",
      "missing",
    ],
    [
      "a rescue without its kernel",
      (box) => box.write(join(box.home, "vm/r/guest.env"), "RESCUE_KERNEL=x\nRESCUE_INITRD=y\n"),
      "rescue:r",
      "limited",
    ],
    ["wrong settings", (box) => box.configure("STOP_TIMEOUT=x\n"), "settings", "limited"],
    ["check-media", (box) => box.program("check-media", "true"), "check-media", "ok"],
    [
      "a TMPDIR that is not a directory",
      (box) => (box.environment.TMPDIR = join(box.top, "nowhere")),
      "tmpdir",
      "missing",
    ],
    ["guests that need KVM", (box) => box.configure("ACCEL=kvm\nQEMUARCH=aarch64\n"), "kvm", "missing"],
  ])("%s", async (_title, prepare, name, state) => {
    using box = new Sandbox();
    prepare(box);
    const { checks } = JSON.parse((await box.vm("doctor", "--json")).stdout);
    expect(checks.find((check: any) => check.name === name)).toMatchObject({ state });
  });

  test("the report has no secrets, and the last lines of logs", async () => {
    using box = await created();
    box.environment.SPICE_PASSWORD = "verysecret";
    box.environment.USER = "somebody";
    box.configure("SNAPSHOT_REPO=rest:http://me:hidden@host/\nSMBIOS=type=1,serial=S123456\n");
    const qemu = await box.running({ console: "the guest of somebody says verysecret\n" });
    qemu.powerOff();
    await box.ok("stop");
    const { stdout } = await box.vm("doctor", "--report");
    expect(stdout).toContain("### doctor");
    expect(stdout).toContain("the guest of USER says ***");
    for (const hidden of [box.home, "hidden", "S123456"]) expect(stdout).not.toContain(hidden);
  });
});

describe("for packagers and shells", () => {
  test.each<[line: string, status: number, printed: string]>([
    ["completion bash", 0, "complete "],
    ["completion zsh", 0, "#compdef vm"],
    ["completion fish", 0, "complete -c vm"],
    ["completion tcsh", 64, "bash"],
    ["man", 0, ".TH"],
    ["--version", 0, "vm 0.0.1"],
    ["--licenses", 0, "GPL"],
    ["-h", 0, "backup"],
    ["backup -h", 0, "--format"],
    ["help", 0, "backup"],
    ["--nonsense", 64, "--nonsense"],
    ["@nonsense", 64, "nonsense"],
    ["@backup --nonsense", 64, "--nonsense"],
  ])("%s → %i", async (line, status, printed) => {
    using box = new Sandbox();
    await box.ends(status, line, printed);
  });

  test("self-check compares the program with a release's checksums", async () => {
    using box = new Sandbox();
    const hash = new Bun.CryptoHasher("sha256").update(readFileSync(process.execPath)).digest("hex");
    await box.ends(0, "self-check", hash);
    const sums = box.write("SHA256SUMS", `${hash}  vm\n`);
    await box.ends(0, ["self-check", sums]);
    writeFileSync(sums, `${"0".repeat(64)}  vm\n`);
    await box.ends(74, ["self-check", sums]);
    writeFileSync(sums, "nothing\n");
    await box.ends(74, ["self-check", sums], "checksums");
    await box.ends(66, "self-check nowhere");
  });

  test("a batch runs its commands in order, and none if one is invalid", async () => {
    using box = new Sandbox();
    await box.ends(64, "@create G @backup --format=zip");
    expect(readdirSync(box.host)).toEqual([]);
    await box.ends(0, "@create G @backup S0 @status", "snapshot S0", "name:");
    await box.ends(64, "@backup S1 @status --json -d x", "-d");
    await box.ends(66, "@backup S1 @restore S7 @destroy", "S7");
    expect(existsSync(box.path(".work"))).toBe(true);
  });
});
