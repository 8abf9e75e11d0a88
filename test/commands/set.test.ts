import { describe, expect, test } from "bun:test";
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { created } from "../fixtures/built.ts";
import { fastClock } from "../fixtures/fast-clock.ts";
import { Refusal, type Behaviour, type FakeQemu } from "../fixtures/qemu/fake-qemu.ts";
import { Sandbox } from "../fixtures/sandbox.ts";
import { prefixOf } from "../../src/network/addresses.ts";
import { lockVm } from "../../src/store/lock.ts";
import { testIf } from "../fixtures/needs.ts";

const guestEnv = (box: Sandbox): string => readFileSync(join(box.work, "guest.env"), "utf8");

/** A qemu with cards and forwards: what it has, by its own account. */
class Net {
  cards: Set<string>;
  netdevs = new Set<string>();
  links: Record<string, boolean> = {};
  forwards: string[] = [];
  releases = true;

  constructor(cards: string[] = ["net0-dev"]) {
    this.cards = new Set(cards);
  }

  get behaviour(): Behaviour {
    return {
      answers: {
        "qom-list": () => [...this.cards].map((name) => ({ name, type: "child<virtio-net-pci>" })),
        netdev_add: ({ id }) => void this.netdevs.add(id),
        netdev_del: ({ id }) => {
          if (!this.netdevs.delete(id)) throw new Refusal(`Device '${id}' not found`, "DeviceNotFound");
        },
        device_add: ({ id, netdev }) => {
          if (!this.netdevs.has(netdev)) throw new Refusal("no such netdev");
          this.cards.add(id);
        },
        device_del: ({ id }, qemu: FakeQemu) => {
          if (this.releases)
            setTimeout(() => (this.cards.delete(id), qemu.emit("DEVICE_DELETED", { device: id })));
        },
        set_link: ({ name, up }) => void (this.links[name] = up),
        "human-monitor-command": ({ "command-line": line }) => {
          const [verb, card, rule] = line.split(" ");
          if (verb === "hostfwd_add") this.forwards.push(`${card} ${rule}`);
          else this.forwards = this.forwards.filter((one) => !one.startsWith(`${card} ${rule}-`));
          return "";
        },
      },
    };
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}

/** Runs ip(8). */
const ip = (...words: string[]): boolean => Bun.spawnSync(["ip", ...words]).exitCode === 0;

/** Firmware variables (test/commands/machine.test.ts). */
function uefiVariables(): Buffer<ArrayBuffer> {
  const content = Buffer.alloc(4096);
  content.writeBigUInt64LE(4096n, 32);
  content.write("_FVH", 40);
  return content;
}

test.each(["set MEMORY=1G", "nic add", "nic remove 1", "forward add tcp::7-:1"])(
  "%s: refused while another process has the VM's lock, and nothing is stored (75)",
  async (line) => {
    using box = await created();
    const before = guestEnv(box);
    using _lock = await lockVm(box.host, "hold");
    using _clock = fastClock();
    await box.ends(75, line, "lock");
    expect(guestEnv(box)).toBe(before);
  },
);

test("the recorded settings of a run are not changed by hand-written nonsense in its record", async () => {
  using box = await created();
  await box.running();
  const path = join(box.work, ".vm.json");
  const mark = JSON.parse(readFileSync(path, "utf8"));
  delete mark.sum;
  mark.run.settings.MEMORY = "bogus";
  mark.run.settings.NETWORKS = ["tap,ifname=x"];
  writeFileSync(path, JSON.stringify(mark));
  expect(await box.json("status")).toMatchObject({ memoryMiB: 64, nics: [{ number: 1 }] });
});

describe("set", () => {
  test("stores settings of options and of assignments, and prints the changes", async () => {
    using box = await created();
    const { stdout } = await box.ends(0, [
      "set",
      "-m",
      "4G",
      "-c",
      "3",
      "CPU=host",
      "SHARES=a:/",
      "SHARES=b:rw:y",
    ]);
    expect(stdout).toContain("MEMORY: 64M -> 4G\n");
    const { MEMORY, CORES, CPU, SHARES } = await box.json("config", "MEMORY", "CORES", "CPU", "SHARES");
    expect([MEMORY.raw, CORES.raw, CPU.raw]).toEqual(["4G", "3", "host"]);
    expect(SHARES.raw).toEqual(["a:/", `b:rw:${join(box.host, "y")}`]);
    mkdirSync(join(box.host, "y"));
    expect(MEMORY.origin.file).toBe(join(box.work, "guest.env"));
    expect((await box.running()).option("-m")).toBe("4096M");
  });

  test("options before the verb are stored, too; --share adds, --share= empties", async () => {
    using box = await created();
    await box.ok("set", "SHARES=a:/x");
    await box.ok("--share=b:/y", "set");
    expect((await box.json("config", "SHARES")).SHARES.raw).toEqual(["a:/x", "b:/y"]);
    await box.ok("set", "--share=", "-s", "c:/z", "--forward=tcp:127.0.0.1:1234-:22");
    const { SHARES, FORWARDS } = await box.json("config", "SHARES", "FORWARDS");
    expect([SHARES.raw, FORWARDS.raw]).toEqual([["c:/z"], "hostfwd=tcp:127.0.0.1:1234-:22"]);
  });

  test("an empty value, and --unset", async () => {
    using box = await created("MEMORY=128M\nSTOP_TIMEOUT=9\nPORT=\nDISKS=(AHCI=1M)\n");
    await box.ok("set", "STOP_TIMEOUT=5", "MEMORY=1G", "ISO=/x.iso");
    await box.ends(
      0,
      "set ISO= --unset=MEMORY --unset=STOP_TIMEOUT",
      "MEMORY: 1G -> 128M",
      "STOP_TIMEOUT: 5 -> 9",
    );
    expect(guestEnv(box)).toContain('ISO=""');
    expect(guestEnv(box)).not.toMatch(/MEMORY|STOP_TIMEOUT/);
  });

  test("lists: an element a word", async () => {
    using box = await created();
    await box.ok("set", "SMBIOS=type=1,serial=7", "SSHKEYS=/a b", "SSHKEYS=/c");
    await box.ok("set", "--smbios=type=2,serial=8");
    const { SMBIOS, SSHKEYS } = await box.json("config", "SMBIOS", "SSHKEYS");
    expect([SMBIOS.raw, SSHKEYS.raw]).toEqual([
      ["type=1,serial=7", "type=2,serial=8"],
      ["/a b", "/c"],
    ]);
  });

  test("the same values again change nothing", async () => {
    using box = await created();
    await box.ok("set", "MEMORY=1G");
    const before = guestEnv(box);
    await box.ends(0, "set MEMORY=1G", "no changes");
    expect(guestEnv(box)).toBe(before);
  });

  test.each<[line: string | string[], printed: string | RegExp]>([
    ["set", "missing"],
    ["set MEMORY", "MEMORY"],
    ["set memory=1G", "did you mean: vm set MEMORY=1G"],
    ["set MEMROY=1G", "MEMORY"],
    ["set MEMORY=many", "a size like"],
    ["set MEMORY=1G MEMORY=2G", "twice"],
    ["set -m 1G MEMORY=2G", "twice"],
    ["set MEMORY=1G --unset=MEMORY", "twice"],
    ["set --unset=X", "no setting 'X'"],
    ["set UUID=x", "identity"],
    ["set --unset=UUID_FORMER", "identity"],
    ["set DISKS=AHCI=1G", "create"],
    ["-D AHCI=1G set", "create"],
    ["set IMAGES=VIRT=x", "disk"],
    ["-i VIRT=x set", "disk"],
    ["set IMAGE_NUMBERS=1", "disk"],
    ["set CONTROLLER_PLACES=scsi0=1", "disk"],
    ["set SPICE_PASSWORD=x", "by hand"],
    ["set SNAPSHOT_NOTIFY=/bin/x", "guest.env"],
    ["set QEMUARCH=aarch64", "created for"],
    ["set SHARES=x", "ID"],
    ["set SHARES=a:/x SHARES=a:/y", "each ID once"],
    ["set FORWARDS=tcp::1-:1 FORWARDS=tcp::1-:2", "each port"],
    [["set", "GUESTNAME=a\u0001b"], "control character"],
    [["set", "GUESTNAME=a\nb"], "printable text"],
    [["set", "GUESTNAME=a\u202eb"], "printable text"],
  ])("refuses %j (64)", async (line, printed) => {
    using box = await created();
    const before = guestEnv(box);
    await box.ends(64, line, printed);
    expect(guestEnv(box)).toBe(before);
  });

  test.each<[word: string, printed: string]>([
    ["UEFI=1", "installed for BIOS"],
    ["QEMUARCH=i386", "installed for x86_64"],
    ["LAYOUT=0", "names of network interfaces"],
    ["MAC=", "MAC address"],
  ])("%s: warns of what the guest notices", async (word, printed) => {
    using box = await created();
    await box.ends(0, ["set", word], "warning:", printed);
  });

  test("refuses a guest.env with other lines than assignments (78), and one that is missing (66)", async () => {
    using box = await created();
    appendFileSync(join(box.work, "guest.env"), "if true; then X=1; fi\n");
    await box.ends(78, "set MEMORY=1G", "by hand");
    using none = new Sandbox();
    await none.ends(66, "set MEMORY=1G");
  });

  test("repairs an invalid value", async () => {
    using box = await created();
    writeFileSync(join(box.work, "guest.env"), guestEnv(box).replace(/^MEMORY=.*$/m, 'MEMORY="bogus"'));
    await box.ends(78, "run -b");
    await box.ok("set", "MEMORY=1G");
    expect((await box.running()).option("-m")).toBe("1024M");
  });

  test("repairs one of two invalid values, also of a running VM", async () => {
    using box = await created();
    await box.running();
    writeFileSync(
      join(box.work, "guest.env"),
      guestEnv(box)
        .replace(/^MEMORY=.*$/m, 'MEMORY="bogus"')
        .replace(/^CORES=.*$/m, 'CORES="x"'),
    );
    await box.ok("set", "MEMORY=1G");
    await box.ok("set", "CORES=3");
    expect((await box.json("status")).nextRun).toEqual({ MEMORY: "1G", CORES: "3" });
  });

  test("of a running VM: status shows what it has, and what the next run has", async () => {
    using box = await created();
    await box.running();
    const { stdout, stderr } = await box.ends(0, "set -m 1G -c 3", "MEMORY: 64M -> 1G\nCORES: 1 -> 3\n");
    expect(stdout + stderr).toMatch(/^the VM is running; from the next run on: CORES; MEMORY$/m);
    const status = await box.json("status");
    expect(status).toMatchObject({ memoryMiB: 64, cores: 1, nextRun: { MEMORY: "1G", CORES: "3" } });
    await box.ends(0, "status", /^memory: +64 MiB$/m, /^next run: +MEMORY: 64M -> 1G$/m);
    expect((await box.json("list"))[0]).toMatchObject({ memoryMiB: 64 });
    await box.ok("restart");
    expect(await box.json("status")).toMatchObject({ memoryMiB: 1024, cores: 3 });
    expect((await box.json("status")).nextRun).toBeUndefined();
  });

  test("of a running VM: status shows the elements that differ, not whole lists", async () => {
    using box = await created();
    await box.ok("set", "SHARES=a:/", "SHARES=b:/", "SMBIOS=type=1,serial=7");
    await box.running(new Net().behaviour);
    await box.ok("set", "SHARES=a:/", "SHARES=c:/usr", "SMBIOS=", "NETWORKS=none", "NETWORKS=user,link=down");
    const { stdout } = await box.ok("status");
    expect(stdout.split("\n").filter((line) => line.startsWith("next run:"))).toEqual(
      [
        "share only of this run: b:/",
        "share added: c:/usr",
        "SMBIOS only of this run: type=1,serial=7",
        "card 1 only of this run: user",
        "card 2 added: user,link=down",
      ].map((text) => `next run:      ${text}`),
    );
    const { nextRun, nextRunChanges } = await box.json("status");
    expect(nextRun.SHARES).toEqual(["a:/", "c:/usr"]);
    expect(nextRunChanges).toContainEqual({ setting: "NETWORKS", card: 1, running: "user", nextRun: null });
    await box.ok("restart");
    expect((await box.json("status")).nextRunChanges).toBeUndefined();
  });

  test("a share of one run: `status` names it as what the VM reaches, until that run has ended", async () => {
    using box = await created();
    const share = { kind: "share", what: "/usr" };
    await box.running({}, "--share=a:/usr");
    expect((await box.json("status")).reaches).toEqual([share]);
    await box.ok("stop");
    expect((await box.json("status")).reaches).toEqual([]);
  });

  test("a value that is stored already, and that the running machine does not have: from the next run on", async () => {
    using box = await created();
    await box.running({}, "-m", "128M");
    await box.ends(0, "set MEMORY=64M", "no changes", "from the next run on: MEMORY: 128M -> 64M");
    await box.ends(0, "set MEMORY=1G", "from the next run on: MEMORY: 128M -> 1G");
    // What the running machine has is not of the next run.
    const { stderr } = await box.ends(0, "set MEMORY=128M");
    expect(stderr).not.toContain("next run");
  });

  test("overrides the options of the last start for restart", async () => {
    using box = await created();
    await box.ok("-m", "256M", "run", "--detach");
    expect((await box.json("status")).nextRun).toEqual({ MEMORY: "64M" });
    await box.ok("set", "CORES=2");
    await box.ok("restart");
    expect(await box.json("status")).toMatchObject({ memoryMiB: 256, cores: 2 });
    await box.ok("set", "-m", "512M");
    await box.ok("restart");
    expect(await box.json("status")).toMatchObject({ memoryMiB: 512 });
  });
});

/** A qemu that refuses a machine with these words in its command line. */
function refusing(box: Sandbox, words: string, message: string): void {
  const path = join(box.bin, "qemu-system-x86_64");
  const [shebang = "", ...script] = readFileSync(path, "utf8").split("\n");
  const refusal = `case " $* " in *'${words}'*) echo "qemu-system-x86_64: ${message}" >&2; exit 1;; esac`;
  writeFileSync(path, [shebang, refusal, ...script].join("\n"));
}

describe("set refuses what the VM would not start with", () => {
  test("a CPU that qemu does not know (64); nothing is stored", async () => {
    using box = await created();
    refusing(box, "-cpu nonsense", "unable to find CPU model 'nonsense'");
    const before = guestEnv(box);
    const refusal = "the VM would not start: qemu-system-x86_64: unable to find CPU model 'nonsense'";
    await box.ends(64, "set CPU=nonsense", refusal, "qemu-system-x86_64 -cpu help");
    await box.ends(64, "set --cpu nonsense", refusal);
    expect(guestEnv(box)).toBe(before);
    await box.ok("set", "CPU=qemu64");
    expect(box.qemus).toEqual([]);
  });

  test("processors that qemu refuses, or beyond the machine's limit (64)", async () => {
    using box = await created();
    refusing(
      box,
      "-smp sockets=1,cores=2,threads=1,maxcpus=1",
      "maxcpus must be equal to or greater than smp",
    );
    await box.ends(64, ["set", "-c", "2,maxcpus=1"], "maxcpus must be");
    await box.ends(64, "set -c 300", "300 processors, the limit is 255");
    await box.ends(64, "set SOCKETS=64 CORES=4", "256 processors");
  });

  test.each<[words: string[], printed: string]>([
    [["SHARES=a:/nowhere"], "SHARES: cannot use /nowhere: no such file or directory"],
    [["SHARES=a:/etc/passwd"], "SHARES: cannot use /etc/passwd: it is not a directory"],
    [["NETBOOT_DIR=/nowhere"], "NETBOOT_DIR: cannot use /nowhere"],
    [["OVMF_CODE=/nowhere", "OVMF_VARS=/etc"], "OVMF_VARS: cannot use /etc: it is a directory"],
    [["OVMF_CODE=/etc/passwd"], "OVMF_CODE and OVMF_VARS must be set together"],
    [["SPICE_TLS_DIR=/nowhere"], "SPICE_TLS_DIR: cannot use /nowhere"],
    [["RESCUE_KERNEL=/nowhere"], "RESCUE_KERNEL: cannot use /nowhere"],
    [["ISO=/nowhere.iso"], "ISO: cannot use /nowhere.iso"],
    [["SSHKEYS=/nowhere.pub"], "SSHKEYS: cannot use /nowhere.pub"],
    [["--share=a:relative"], "/relative: no such file or directory"],
  ])("%j: a path that does not exist is stored, with a warning", async (words, printed) => {
    using box = await created();
    const { stderr } = await box.ends(0, ["set", ...words], "warning:", printed);
    expect(stderr.match(/warning: (?!running as root)/g)!.length).toBe(words.length);
  });

  test("paths that exist, macros and CD images to be searched for: no warning", async () => {
    using box = await created();
    const words = ["SHARES=a:/etc", "SHARES=b:@HOSTDIR@/x", "ISO=x.iso", "NETBOOT_DIR=/etc", "SSHKEYS="];
    expect((await box.ends(0, ["set", ...words])).stderr).not.toContain("cannot use");
    using other = new Sandbox();
    await other.ends(0, "--share=a:/nowhere create G", "SHARES: cannot use /nowhere");
  });

  test("what depends on this host is a warning", async () => {
    using box = await created();
    await box.ends(0, "set -m 900T", "warning:", "exceeds that of this host");
    await box.ends(0, "-m 800T run -b", "exceeds that of this host");
    await box.ends(0, "set MEMORY=12", "warning:", "only 12 MiB", "MEMORY=12G");
    expect((await box.ends(0, "set MEMORY=16")).stderr).not.toContain("warning");
    if (existsSync("/dev/kvm")) return;
    await box.ends(0, "set CPU=host", "warning:", "CPU=host needs KVM");
    await box.ends(0, "set ACCEL=kvm CPU=qemu64", "warning:", "does not start on this host: no KVM");
  });

  test("without qemu nothing is checked", async () => {
    using box = await created();
    rmSync(join(box.bin, "qemu-system-x86_64"));
    box.without("qemu-system-x86_64");
    await box.ok("set", "CPU=nonsense");
  });

  test("the same MAC address of two cards (64)", async () => {
    using box = await created();
    await box.ok("set", "NETWORKS=user", "NETWORKS=user,mac=02:00:00:00:00:07");
    const before = guestEnv(box);
    await box.ends(64, "set MAC=02:00:00:00:00:07", "cards 1 and 2", "02:00:00:00:00:07");
    const [{ mac }] = await box.json("nic", "list");
    await box.ends(64, ["set", "NETWORKS=user", `NETWORKS=user,mac=${mac}`], "cards 1 and 2");
    await box.ends(64, "set NETWORKS=user,mac=02:00:00:00:00:07 NETWORKS=user,mac=02:00:00:00:00:07", "once");
    expect(guestEnv(box)).toBe(before);
  });
});

describe("the file of the settings", () => {
  test("is named by each change, and by status", async () => {
    using box = await created();
    const path = join(box.work, "guest.env");
    for (const line of ["set MEMORY=1G", "nic add", "forward add tcp::7-:1", "disk add 1M", "cd --eject"])
      await box.ends(0, line, ...(line.startsWith("cd") ? [] : [`stored in ${path}\n`]));
    await box.ends(0, "status", new RegExp(`^settings: +${path}$`, "m"));
    expect((await box.json("status")).settingsFile).toBe(path);
    await box.ok("@backup", "@destroy");
    expect((await box.json("status")).settingsFile).toBe(box.path("guest.env"));
  });

  test("HOSTDIR's copy says that it is not read; a change in it has no effect, which is reported", async () => {
    using box = await created();
    await box.ok("backup");
    const copy = box.path("guest.env");
    expect(readFileSync(copy, "utf8")).toStartWith("# Not read while the VM has working files");
    expect((await box.json("status")).unreadSettings).toBeUndefined();
    await box.ok("set", "MEMORY=1G");
    expect((await box.json("status")).unreadSettings).toBeUndefined();
    writeFileSync(copy, readFileSync(copy, "utf8").replace(/^CORES=.*$/m, 'CORES="7"'));
    const later = new Date(Date.now() + 5000);
    utimesSync(copy, later, later);
    expect(await box.json("status")).toMatchObject({ unreadSettings: copy, cores: 1 });
    await box.ends(0, "status", new RegExp(`^not read: +${copy},`, "m"));
    await box.ends(0, "set MEMORY=2G", "warning:", `changes in ${copy} have no effect`);
    await box.ends(0, "run -b", `changes in ${copy} have no effect`);
  });

  test("its values are those of the snapshot after a restore, also where HOSTDIR has others", async () => {
    using box = await created();
    await box.ok("backup");
    await box.ok("@set", "MEMORY=1G", "@backup", "@set", "MEMORY=2G", "@restore", "S0");
    expect((await box.json("status")).memoryMiB).toBe(64);
    await box.ok("restore", "S1");
    expect((await box.json("status")).memoryMiB).toBe(1024);
    expect((await box.json("status")).unreadSettings).toBeUndefined();
  });
});

test("a copy of a VM: status and identity name the other directory, and how to give it a UUID", async () => {
  using box = await created();
  await box.ok("backup");
  const copy = join(box.top, "copy");
  cpSync(box.host, copy, { recursive: true, verbatimSymlinks: true });
  unlinkSync(join(copy, ".work"));
  const { uuid } = await box.json("identity");
  const recorded = join(box.home, ".cache/vm/vms", uuid);
  expect(readlinkSync(recorded)).toBe(box.host);
  await box.ends(0, ["-d", copy, "status"], new RegExp(`^copy: .*${box.host}.*: vm identity --new$`, "m"));
  await box.ends(0, ["-d", copy, "identity"], "warning:", box.host, "vm identity --new");
  expect((await box.json("-d", copy, "status")).sameAs).toBe(box.host);
  expect((await box.json("status")).sameAs).toBeUndefined();
  expect(readlinkSync(recorded)).toBe(box.host);
  await box.ok("-d", copy, "identity", "--new");
  expect((await box.json("-d", copy, "status")).sameAs).toBeUndefined();
});

test("forwards stay when the last card goes, which is reported", async () => {
  using box = await created();
  await box.ok("forward", "add", "tcp:127.0.0.1:4444-:22");
  await box.ends(0, "nic remove 1", "kept without effect", "forward tcp:127.0.0.1:4444-:22");
  await box.ok("nic", "add");
  expect(await box.json("forward", "list")).toHaveLength(1);
  await box.ends(0, "set NETWORKS=none", "kept without effect");
  const { stderr } = await box.ends(0, "set MEMORY=1G");
  expect(stderr).not.toContain("kept");
});

test("a forward that is set without a card for it is stored, with a warning", async () => {
  using box = await created("", "--net=net=lab");
  const { stderr } = await box.ends(
    0,
    "set -f tcp:127.0.0.1:4444-:22",
    "warning: without effect",
    "vm nic add",
  );
  expect(stderr).toContain("forward tcp:127.0.0.1:4444-:22");
  expect((await box.ends(0, "set MEMORY=1G")).stderr).not.toContain("effect");
});

test("status and nic list show name and address of a card that has joined a network among VMs", async () => {
  using box = await created("", "--net=net=lab");
  const [{ mac, ...before }] = await box.json("nic", "list");
  expect(before).not.toHaveProperty("address");
  const members = [{ mac, name: "web", host: 77 }];
  mkdirSync(join(box.home, ".cache/vm/networks"), { recursive: true });
  box.write(join(box.home, ".cache/vm/networks/lab.json"), JSON.stringify({ network: 1, members }));
  const address = `${prefixOf("lab")}.77`;
  expect(await box.json("nic", "list")).toMatchObject([{ number: 1, name: "web", address }]);
  expect((await box.json("status")).nics).toMatchObject([{ number: 1, mac, name: "web", address }]);
  await box.ends(0, "status", `net=lab, ${mac}, web ${address}`);
  await box.ends(0, "nic list", "NAME", address);
});

describe("forward", () => {
  test("of a VM that is off: stored, listed, removed by rule or port", async () => {
    using box = await created();
    await box.ok("forward", "add", "tcp:127.0.0.1:4444-:22", "udp::53-:53");
    expect(await box.json("forward", "list")).toMatchObject([
      { rule: "tcp:127.0.0.1:4444-:22", hostPort: 4444, guestPort: 22, running: null, nextRun: true },
      { rule: "udp::53-:53", protocol: "udp" },
    ]);
    await box.ok("forward", "remove", "4444");
    await box.ok("forward", "remove", "hostfwd=udp::53-:53");
    expect(await box.json("forward", "list")).toEqual([]);
    expect(guestEnv(box)).toContain('FORWARDS=""');
  });

  test.each<[status: number, line: string, printed: string]>([
    [64, "forward", "ACTION"],
    [64, "forward ad", "add"],
    [64, "forward add", "RULE"],
    [64, "forward add 5555:22", "did you mean: vm forward add tcp:127.0.0.1:5555-:22"],
    [64, "forward add tcp:[::1]:5-:5", "IPv4"],
    [64, "forward add tcp::7-:1 tcp::7-:2", "each port"],
    [64, "forward add tcp::7-:1 --json", "--json"],
    [64, "forward add smb=/etc", "not a port forward"],
    [64, "forward list x", "no rules"],
    [66, "forward remove 99", "no such forward"],
    [66, "forward add tcp::7-:1 --temporary", "not running"],
    [69, "--no-netdev create G @forward add tcp::7-:1", "add one: vm nic add"],
  ])("%i for %j", async (status, line, printed) => {
    using box = line.includes("create") ? new Sandbox() : await created();
    await box.ends(status, line, printed);
  });

  test("of a running VM at once; --temporary until it is off", async () => {
    using box = await created();
    const net = new Net();
    await box.running(net.behaviour);
    const [one, two] = [await freePort(), await freePort()];
    await box.ok("forward", "add", `tcp:127.0.0.1:${one}-:22`);
    await box.ok("forward", "add", `tcp:127.0.0.1:${two}-:80`, "--temporary");
    expect(net.forwards).toEqual([`net0 tcp:127.0.0.1:${one}-:22`, `net0 tcp:127.0.0.1:${two}-:80`]);
    expect(await box.json("forward", "list")).toMatchObject([
      { hostPort: one, running: true, nextRun: true },
      { hostPort: two, running: true, nextRun: false },
    ]);
    expect((await box.json("status")).forwards).toHaveLength(2);
    await box.ends(0, "forward list", "this run only");
    await box.ok("forward", "remove", String(one));
    expect(net.forwards).toEqual([`net0 tcp:127.0.0.1:${two}-:80`]);
    expect((await box.json("status")).forwards).toEqual([`hostfwd=tcp:127.0.0.1:${two}-:80`]);
    box.qemu = new Net().behaviour;
    await box.ok("restart");
    expect((await box.json("status")).forwards).toEqual([`hostfwd=tcp:127.0.0.1:${two}-:80`]);
    await box.ok("stop");
    await box.running();
    expect((await box.json("status")).forwards).toEqual([]);
  });

  test("a taken port (75): neither added nor stored", async () => {
    using box = await created();
    const net = new Net();
    await box.running(net.behaviour);
    const server = createServer();
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    const { port } = server.address() as AddressInfo;
    await box.ends(75, `forward add tcp:127.0.0.1:${port}-:22`, `${port} is taken`);
    await box.ends(75, `set FORWARDS=tcp:127.0.0.1:${port}-:22`, `${port} is taken`);
    server.close();
    expect((await box.json("status")).nextRun).toBeUndefined();
    expect(net.forwards).toEqual([]);
    expect((await box.json("status")).forwards).toEqual([]);
  });

  test.each(["tcp", "udp"])(
    "%s: an address that is not this host's is not called taken (66)",
    async (protocol) => {
      using box = await created();
      const rule = `${protocol}:203.0.113.5:8080-:80`;
      const said = "203.0.113.5 is not an address of this host";
      await box.ends(66, ["--forward", rule, "run", "-b"], said);
      const net = new Net();
      await box.running(net.behaviour);
      await box.ends(66, `forward add ${rule}`, said);
      await box.ends(66, `set FORWARDS=${rule}`, said);
      expect(net.forwards).toEqual([]);
      expect((await box.json("status")).nextRun).toBeUndefined();
    },
  );

  test("a taken port among several: none is changed", async () => {
    using box = await created();
    const net = new Net();
    await box.running(net.behaviour);
    const [one, two] = [await freePort(), await freePort()];
    await box.ok("forward", "add", `tcp:127.0.0.1:${one}-:22`);
    const server = createServer();
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    const { port } = server.address() as AddressInfo;
    const before = [`net0 tcp:127.0.0.1:${one}-:22`];
    await box.ends(75, `forward add tcp:127.0.0.1:${two}-:22 tcp:127.0.0.1:${port}-:22`, "taken");
    expect(net.forwards).toEqual(before);
    await box.ends(75, `set FORWARDS=tcp:127.0.0.1:${two}-:22 FORWARDS=tcp:127.0.0.1:${port}-:22`, "taken");
    server.close();
    expect(net.forwards).toEqual(before);
    expect(await box.json("forward", "list")).toMatchObject([
      { hostPort: one, running: true, nextRun: true },
    ]);
  });

  test("a refusal of qemu (74) is reported in its words, and nothing is stored", async () => {
    using box = await created();
    const { behaviour } = new Net();
    behaviour.answers!["human-monitor-command"] = () => "could not set up host forwarding rule 'x'\r\n";
    await box.running(behaviour);
    await box.ends(74, `forward add tcp:127.0.0.1:${await freePort()}-:22`, "could not set up");
    expect(await box.json("forward", "list")).toEqual([]);
  });

  test("set FORWARDS=… changes those of a running VM", async () => {
    using box = await created();
    const net = new Net();
    await box.running(net.behaviour);
    const [one, two] = [await freePort(), await freePort()];
    await box.ok("set", `FORWARDS=tcp:127.0.0.1:${one}-:22`);
    await box.ok("set", `FORWARDS=tcp:127.0.0.1:${two}-:22`);
    expect(net.forwards).toEqual([`net0 tcp:127.0.0.1:${two}-:22`]);
    await box.ok("set", `FORWARDS=tcp:127.0.0.1:${two}-:22`, `FORWARDS=tcp:127.0.0.1:${one}-:80`);
    await box.ok("set", `FORWARDS=tcp:127.0.0.1:${one}-:80`, `FORWARDS=tcp:127.0.0.1:${two}-:22`);
    expect((await box.json("status")).nextRun).toBeUndefined();
    await box.ok("set", "FORWARDS=");
    expect(net.forwards).toEqual([]);
    expect((await box.json("status")).nextRun).toBeUndefined();
  });
});

describe("nic", () => {
  test("of a VM that is off: added, listed, link down, removed", async () => {
    using box = await created();
    await box.ok("nic", "add");
    await box.ok("nic", "add", "user", "--mac=02:00:00:00:00:AA");
    await box.ok("nic", "down", "2");
    const cards = await box.json("nic", "list");
    expect(cards).toMatchObject([
      { number: 1, link: "up" },
      { number: 2, link: "down", running: null, nextRun: true },
      { number: 3, mac: "02:00:00:00:00:aa" },
    ]);
    expect(new Set(cards.map(({ mac }: { mac: string }) => mac)).size).toBe(3);
    await box.ok("nic", "remove", "2");
    await box.ok("nic", "remove", "1");
    expect((await box.json("nic", "list")).map(({ number }: { number: number }) => number)).toEqual([3]);
    const qemu = await box.running();
    expect(qemu.argv.filter((_, at) => qemu.argv[at - 1] === "-netdev")).toEqual(["user,id=net2"]);
    await box.ok("stop");
    await box.ok("nic", "remove", "3");
    expect(await box.json("nic", "list")).toEqual([]);
    expect((await box.running()).option("-netdev")).toBeUndefined();
  });

  test.each<[status: number, line: string, printed: string]>([
    [64, "nic", "ACTION"],
    [64, "nic lst", "list"],
    [64, "nic add tap", "user"],
    [64, "nic add net=../x", "1 to 63 lower-case letters"],
    [64, "set NETWORKS=net=Lab", "1 to 63 lower-case letters"],
    [64, "--net=bridge=a/b create G", "1 to 15 letters"],
    [64, "nic add passt --net=user", "two networks"],
    [64, "nic up 1 --net=user", "--net is for add"],
    [64, "nic add --mac=03:00:00:00:00:01", "MAC address"],
    [64, "nic up", "number"],
    [64, "nic remove 0", "1 to 4"],
    [64, "nic remove 5", "1 to 4"],
    [64, "nic list 1", "too many"],
    [64, "nic up 1 --json", "--json"],
    [66, "nic down 2", "no network card 2"],
    [69, "set NETWORKS=user NETWORKS=user NETWORKS=user NETWORKS=user @nic add", "at most 4"],
  ])("%i for %j", async (status, line, printed) => {
    using box = await created();
    await box.ends(status, line, printed);
  });

  const tap = `vmt${process.pid}`;
  const tapWords = ["dev", tap, "mode", "tap"];
  const hasTap = process.getuid!() === 0 && Bun.which("ip") !== null && ip("tuntap", "add", ...tapWords);
  if (hasTap) ip("tuntap", "del", ...tapWords);

  testIf(hasTap, "tap devices, and root")(
    "a tap device that is down is reported by run and doctor; no two cards are on one",
    async () => {
      using box = await created("", `--net=tap=${tap}`);
      ip("tuntap", "add", ...tapWords);
      try {
        await box.ends(0, "run -b", `the tap device ${tap} is down`, `sudo ip link set ${tap} up`);
        await box.ends(75, `nic add tap=${tap}`, `${tap} is in use by network card 1`);
        expect((await box.vm("doctor")).stdout).toContain(`the tap device ${tap} is down`);
        await box.ok("stop");
        ip("link", "set", tap, "up");
        expect((await box.ends(0, "run -b")).stderr).not.toContain("is down");
      } finally {
        ip("tuntap", "del", ...tapWords);
      }
    },
  );

  test("words of networks are stored and shown; without what they need, run says what (69)", async () => {
    using box = await created();
    await box.ok("nic", "add", "net=lab,outside=off");
    await box.ok("--net=tap=nowhere0", "set");
    expect((await box.json("status")).nics).toMatchObject([
      { number: 1, network: "user" },
      { number: 2, network: "net=lab,outside=off" },
      { number: 3, network: "tap=nowhere0" },
    ]);
    await box.ok("nic", "remove", "2");
    await box.ends(69, "run", "no tap device nowhere0");
    // The run is not recorded: the disks are as they were.
    expect((await box.json("status")).state).toBe("created");
    await box.ok("set", "NETWORKS=bridge=nowhere1");
    await box.ends(69, "run", "nowhere1");
  });

  test("the MAC address of another card (64)", async () => {
    using box = await created();
    const [{ mac }] = await box.json("nic", "list");
    await box.ends(64, `nic add --mac=${mac}`, "card 1");
  });

  test("--no-netdev and --netdev override the first card for one run", async () => {
    using box = await created();
    await box.ok("nic", "add");
    const { argv } = await box.running({}, "--no-netdev");
    expect(argv.filter((word) => word.startsWith("user,id="))).toEqual(["user,id=net1"]);
    expect((await box.json("status")).nics).toMatchObject([{ number: 2 }]);
    await box.ends(64, "set USENETDEV=", "NETWORKS");
  });

  test.each(["BIOS", "UEFI"])(
    "of a running VM, %s: plugged in where the next start has it",
    async (firmware) => {
      using box = await created();
      if (firmware === "UEFI") {
        const [code, vars] = ["code", "vars"].map((name) => box.write(join(box.top, name), uefiVariables()));
        box.configure(`UEFI=1\nOVMF_CODE=${code}\nOVMF_VARS=${vars}\n`);
        await box.ok("set", "UEFI=1");
      }
      const net = new Net();
      const qemu = await box.running(net.behaviour);
      await box.ok("nic", "add");
      const added = qemu.requests.find(({ execute }) => execute === "device_add")!.arguments;
      expect(await box.json("nic", "list")).toMatchObject([
        { number: 1, running: true, nextRun: true },
        { number: 2, running: true, nextRun: true, mac: added.mac },
      ]);
      expect((await box.json("status")).nics).toHaveLength(2);
      await box.ok("stop");
      const again = await box.running(new Net(["net0-dev", "net1-dev"]).behaviour);
      const { driver, ...properties } = added;
      const words = Object.entries(properties).map(([name, value]) => `${name}=${value as string}`);
      expect(words.at(-1)).toBe(firmware === "UEFI" ? "bus=nic-port2" : "addr=0x18");
      expect(again.option("-device", "net1-dev")).toBe([driver, ...words].join(","));
    },
  );

  test("removed from a running VM: device, netdev and setting", async () => {
    using box = await created();
    await box.ok("nic", "add");
    const net = new Net(["net0-dev", "net1-dev"]);
    net.netdevs.add("net1");
    await box.running(net.behaviour);
    await box.ok("nic", "remove", "2");
    expect([...net.cards, ...net.netdevs]).toEqual(["net0-dev"]);
    expect(await box.json("nic", "list")).toHaveLength(1);
    expect((await box.json("status")).nics).toHaveLength(1);
  });

  test("the first card of a running VM: from the next run on", async () => {
    using box = await created();
    const net = new Net();
    await box.running(net.behaviour);
    await box.ends(0, "nic remove 1", "from the next run on");
    expect([...net.cards]).toEqual(["net0-dev"]);
    expect(await box.json("nic", "list")).toMatchObject([{ number: 1, running: true, nextRun: false }]);
    await box.ends(0, "nic list", "this run only");
  });

  test("a paused guest cannot release a card (75): it stays", async () => {
    using box = await created();
    await box.ok("nic", "add");
    const net = new Net(["net0-dev", "net1-dev"]);
    await box.running(net.behaviour);
    await box.ok("pause");
    await box.ends(75, "nic remove 2", "paused");
    expect(await box.json("nic", "list")).toHaveLength(2);
  });

  test("after a command that was killed halfway, or a late release: the next one is right", async () => {
    using box = await created();
    const net = new Net();
    await box.running(net.behaviour);
    // Killed between netdev_add and device_add.
    net.netdevs.add("net1");
    await box.ok("nic", "add");
    expect([...net.cards]).toEqual(["net0-dev", "net1-dev"]);
    // Killed between device_add and its record.
    net.cards.add("net2-dev");
    net.netdevs.add("net2");
    await box.ok("nic", "add");
    expect((await box.json("status")).nics).toHaveLength(3);
    // Released without a command.
    net.cards.delete("net1-dev");
    await box.ok("nic", "down", "1");
    expect(await box.json("nic", "list")).toMatchObject([
      { number: 1 },
      { number: 2, running: false },
      { number: 3 },
    ]);
    await box.ok("nic", "remove", "2");
    expect([...net.netdevs]).not.toContain("net1");
  });

  test("qemu refuses the card (74): no netdev is left, nothing is stored", async () => {
    using box = await created();
    const net = new Net();
    const { behaviour } = net;
    behaviour.answers!.device_add = () => {
      throw new Refusal("Bus 'pci.0' does not support hotplugging");
    };
    await box.running(behaviour);
    await box.ends(74, "nic add", "hotplugging");
    expect([...net.netdevs]).toEqual([]);
    expect(await box.json("nic", "list")).toHaveLength(1);
  });

  test("a link: at once, and before the guest runs at the next start", async () => {
    using box = await created();
    const net = new Net();
    await box.running(net.behaviour);
    await box.ok("nic", "down", "1");
    expect(net.links).toEqual({ "net0-dev": false });
    expect((await box.json("status")).nics).toMatchObject([{ link: "down" }]);
    await box.ok("stop");
    const after = new Net();
    const qemu = await box.running(after.behaviour);
    expect(qemu.argv).toContain("-S");
    const order = qemu.requests
      .map(({ execute }) => execute)
      .filter((name) => name === "set_link" || name === "cont");
    expect(order).toEqual(["set_link", "cont"]);
    await box.ok("set", "NETWORKS=user");
    expect(after.links).toEqual({ "net0-dev": true });
    expect((await box.json("status")).nextRun).toBeUndefined();
  });

  test("a link that cannot be set at the start: the run fails, and qemu is ended", async () => {
    using box = await created();
    await box.ok("nic", "down", "1");
    const { behaviour } = new Net();
    behaviour.answers!.set_link = () => {
      throw new Refusal("Device 'net0-dev' not found");
    };
    box.qemu = behaviour;
    await box.ends(74, "run -b", "not found");
    await box.qemus.at(-1)!.ended;
    expect((await box.json("status")).state).not.toBe("running");
  });
});

describe("network boot", () => {
  test("by the first card, from a directory; not of jobs; shown by status as reached", async () => {
    using box = await created();
    const directory = join(box.top, "tftp, files");
    mkdirSync(directory);
    await box.ok("set", `NETBOOT_DIR=${directory}`, "NETBOOT_FILE=a,b");
    await box.ok("nic", "add");
    const qemu = await box.running({}, "--netboot");
    expect(qemu.option("-netdev", "net0")).toBe(
      `user,id=net0,tftp=${directory.replaceAll(",", ",,")},bootfile=a,,b`,
    );
    expect(qemu.option("-netdev", "net1")).toBe("user,id=net1");
    expect(qemu.option("-device", "net0-dev")).toEndWith(",bootindex=0");
    expect((await box.json("status")).reaches).toContainEqual({ kind: "netboot", what: directory });
  });

  test("a directory that does not exist (66)", async () => {
    using box = await created();
    await box.ok("set", "NETBOOT_DIR=/does/not/exist");
    await box.ends(66, "run -b", "NETBOOT_DIR");
  });
});
