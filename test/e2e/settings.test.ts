/** Sources of settings, extra arguments, media and shares, as seen in the command that runs. */
import { beforeAll, expect, test } from "bun:test";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import type { Guests } from "../guests/build.ts";
import { binary, guests, type Sandbox } from "./harness.ts";
import { configure, expectError, listing, rootTest, smallSandbox, suite } from "./tools.ts";

let iso: Guests;

/** A new VM. Its disk is empty: each run boots a CD that powers off. */
async function made(options: readonly string[] = []): Promise<Sandbox> {
  const box = smallSandbox();
  await box.ok([...options, "create", "G", iso.haltIso]);
  return box;
}

/** A line of vm.defaults that is easy to find. */
const serial = (id: string): string => `-device virtio-serial-pci,id=from-${id}\n`;

const script = (box: Sandbox): string => box.read(".work/run-vm.sh");

/** A typical check-media on PATH, and the PATH. */
function checkMedia(box: Sandbox, text: string): Record<string, string> {
  const bin = join(box.top, "bin");
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(bin, "check-media"), text);
  return { PATH: `${bin}:${process.env.PATH}` };
}

suite("settings", () => {
  test("a backup reads each settings file once", async () => {
    using box = await made();
    configure(box, "PORT=\nMEMORY=64M\n");
    await box.ok(["backup"]);
    const log = join(box.top, "strace");
    const strace = [
      "strace",
      "-f",
      "-qq",
      "-o",
      log,
      "-e",
      "trace=open,openat,readlink",
      "-e",
      "signal=none",
    ];
    const ran = await box.vm(["backup"], { program: [...strace, "--", binary] });
    expect(ran.status).toBe(0);
    const lines = readFileSync(log, "utf8")
      .split("\n")
      .filter((line) => !line.includes(" = -1 ") && !line.includes("O_PATH"));
    const count = (path: string): number => lines.filter((line) => line.includes(`"${path}"`)).length;
    expect({
      user: count(join(box.home, ".config/vm.conf")),
      // Read, and copied into the snapshot.
      vm: count(join(box.work, "guest.env")),
      mark: count(join(box.work, ".vm.json")),
      // Followed, and compared with files of an interrupted command.
      link: count(box.path(".work")),
    }).toEqual({ user: 1, vm: 2, mark: 1, link: 2 });
  });

  beforeAll(async () => {
    iso = await guests();
  });

  test("vm.defaults: extra arguments reach qemu; expands quotes and $NAME, executes nothing", async () => {
    using box = await made();
    const text = [
      "# extra hardware",
      "-device pci-testdev \\",
      "  -device 'virtio-serial-pci,id=own'",
      '-name "$GUESTNAME in $HOSTDIR"   # a comment',
      "-fw_cfg 'name=opt/x,string=$(touch pwned) `id`'",
      "",
    ];
    box.write("vm.defaults", text.join("\n"));
    await box.ok(["run", iso.haltIso]);
    const tail = script(box).slice(script(box).indexOf("-device pci-testdev"));
    expect(tail).toContain("-device virtio-serial-pci,id=own");
    expect(tail).toContain(`-name 'G in ${box.host}'`);
    expect(tail).toContain("'name=opt/x,string=$(touch pwned) `id`'");
    expect(existsSync(box.path("pwned"))).toBe(false);
  });

  test("vm.defaults: uses the first of WORKDIR, HOSTDIR and ~/.config", async () => {
    using box = await made();
    configure(box, serial("home"), "vm.defaults");
    await box.ok(["run", iso.haltIso]);
    expect(script(box)).toContain("from-home");
    box.write("vm.defaults", serial("hostdir"));
    await box.ok(["run", iso.haltIso]);
    expect(script(box)).toMatch(/from-hostdir/);
    expect(script(box)).not.toMatch(/from-home/);
    box.write(".work/vm.defaults", serial("workdir"));
    await box.ok(["run", iso.haltIso]);
    expect(script(box)).toMatch(/from-workdir/);
    expect(script(box)).not.toMatch(/from-hostdir|from-home/);
    box.write(".work/vm.defaults", "");
    await box.ok(["run", iso.haltIso]);
    expect(script(box)).not.toMatch(/from-/);
  });

  rootTest("settings and defaults in /etc have the lowest priority", async () => {
    using box = smallSandbox();
    const prog = basename(box.top);
    const program = [join(box.top, prog)];
    symlinkSync(binary, program[0]!);
    const etc = ["conf", "defaults"].map((suffix) => `/etc/${prog}.${suffix}`);
    try {
      writeFileSync(etc[0]!, "MEMORY=72M\nCORES=3\nPORT=\nDISKS=VIRT=8M\n");
      writeFileSync(etc[1]!, "-device virtio-serial-pci,id=from-etc\n");
      configure(box, "CORES=1\n", `${prog}.conf`);
      await box.ok(["@create", "G", iso.haltIso, "@run", iso.haltIso], { program });
      expect(script(box)).toMatch(/-smp 1,.*\n.*-m 72M/);
      expect(script(box)).toContain("virtio-blk-pci");
      expect(script(box)).toContain("from-etc");
      await box.ok(["-m", "80M", "run", iso.haltIso], { program });
      expect(script(box)).toContain("-m 80M");
    } finally {
      for (const file of etc) rmSync(file, { force: true });
    }
  });

  test("started as kvm it reads kvm.conf and kvm.defaults", async () => {
    using box = smallSandbox();
    const program = [join(box.top, "kvm")];
    symlinkSync(binary, program[0]!);
    configure(box, "MEMORY=88M\nPORT=\nDISKS=AHCI=16M\n", "kvm.conf");
    configure(box, "-device virtio-serial-pci,id=for-kvm\n", "kvm.defaults");
    configure(box, "-device virtio-serial-pci,id=for-vm\n", "vm.defaults");
    await box.ok(["@create", "G", iso.haltIso, "@run", iso.haltIso], { program });
    expect(script(box)).toContain("-m 88M");
    expect(script(box)).toContain("for-kvm");
    expect(script(box)).not.toContain("for-vm");
    const failed = await box.vm(["--bogus"], { program });
    expect(failed.stderr).toMatch(/^kvm: unknown option/);
    expect((await box.ok(["-v"], { program })).stdout).toMatch(/ \d+\.\d+/);
  });

  test("layers: vm.conf, guest.env, command line", async () => {
    using box = smallSandbox();
    configure(box, "MEMORY=72M\nCORES=4\nHOST=127.0.0.3\nPORT=\nDISKS=( NVME=16M VIRT=16M )\nKEEPCD=1\n");
    const help = async (...options: string[]): Promise<string> => (await box.ok([...options, "-h"])).stdout;
    expect(await help()).toMatch(/--memory=SIZE .*\[72M\]/);
    expect(await help()).toMatch(/--disks=\S+ .*\[NVME=16M VIRT=16M\]/);
    box.write("guest.env", "MEMORY=96M\n");
    expect(await help()).toMatch(/--memory=SIZE .*\[96M\]/);
    expect(await help("-m1G")).toMatch(/--memory=SIZE .*\[1G\]/);
    expect(await help()).toMatch(/--cores=N .*\[4\]/);
    rmSync(box.path("guest.env"));
    await box.ok(["--no-keep-cd", "-c2", "@create", "G", iso.haltIso, "@run", iso.haltIso]);
    expect(script(box)).toMatch(/-smp 2,.*\n.*-m 72M/);
    expect(script(box)).toMatch(/nvme,[^]*virtio-blk-pci/);
  });

  test("-d DIR reads DIR's guest.env, not the current directory's", async () => {
    using box = await made();
    mkdirSync(join(box.top, "other"));
    writeFileSync(join(box.top, "other/guest.env"), "MEMORY=99M\nUEFI=1\n");
    await box.ok(["-d", "../vm1", "run", iso.haltIso], { cwd: join(box.top, "other") });
    expect(script(box)).toContain("-m 64M");
    expect(listing(join(box.top, "other"))).toHaveLength(1);
  });

  test("arrays, references and conditions in vm.conf", async () => {
    using box = smallSandbox();
    configure(
      box,
      'PORT=\nCORES=1\nBASE=64\nif [ -d "$HOME" ]; then MEMORY=$((BASE + 8))M; fi\nDISKS=( "VIRT=8M" \'SCSI=8M\' )\nSHARES+=( "home:$HOME" )\n',
    );
    await box.ok(["@create", "G", iso.haltIso, "@run", iso.haltIso]);
    expect(script(box)).toContain("-m 72M");
    expect(script(box)).toMatch(/virtio-blk-pci[^]*scsi-hd/);
    expect(script(box)).toContain(`path=${box.home},`);
  });

  test("bash does not read a vm.conf that others can write", async () => {
    using box = smallSandbox();
    configure(box, `touch ${box.path("pwned")}\nPORT=\n`);
    chmodSync(join(box.home, ".config/vm.conf"), 0o666);
    const before = listing(box.top);
    expectError(await box.vm(["create", "G"]), 78, /vm\.conf:1: .*writable by other users/);
    expect(listing(box.top)).toEqual(before);
  });

  test("check-media on PATH defines the media; finds a CD in MEDIA + MEDIA_STORAGE", async () => {
    using box = smallSandbox();
    const media = join(box.top, "media disk");
    mkdirSync(join(media, "images/iso"), { recursive: true });
    cpSync(iso.haltIso, join(media, "images/iso/halt.iso"));
    configure(box, "MEMORY=64M\nPORT=\nDISKS=AHCI=16M\nMEDIA_STORAGE=/images/iso\n");
    const env = checkMedia(box, `# asked\necho looking >&2\nMEDIA="${media}"\n`);
    const { stderr } = await box.ok(["@create", "G", "halt.iso", "@run", iso.haltIso], { env });
    expect(stderr).toContain("looking");
    expect(box.console()).toBe("BOOTED FROM CD\n");
    expect(box.read(".work/guest.env")).toContain('ISO="halt.iso"');
    expectError(await box.vm(["run", "nowhere.iso"], { env }), 66, /nowhere\.iso/);
  });

  test("a failing check-media stops the command; it runs only if needed", async () => {
    using box = await made();
    const env = checkMedia(box, `touch ${box.path("asked")}\nfalse\n`);
    await box.ok(["--share=", "run", iso.haltIso], { env });
    expect(existsSync(box.path("asked"))).toBe(false);
    expectError(await box.vm(["-i", "VIRT=@MEDIA@/x.img", "run", iso.haltIso], { env }), 66, /check-media/);
    expectError(await box.vm(["-i", "VIRT=@MEDIA@/x.img", "run", iso.haltIso]), 69, /check-media/);
  });

  test.each(["", ".", "CWD"])(
    "never runs check-media from the current directory (PATH has %j)",
    async (entry) => {
      using box = await made();
      box.write("check-media", `touch ${box.path("pwned")}\nMEDIA=/\n`);
      chmodSync(box.path("check-media"), 0o755);
      const env = { PATH: `${entry === "CWD" ? box.host : entry}:${process.env.PATH}` };
      expectError(await box.vm(["-i", "VIRT=@MEDIA@/x.img", "run", iso.haltIso], { env }), 69, /check-media/);
      expect(existsSync(box.path("pwned"))).toBe(false);
    },
  );

  test("the mirror share exists with MEDIA_MIRROR, and is omitted without", async () => {
    using box = smallSandbox();
    await box.ok(["@create", "G", iso.haltIso, "@run", iso.haltIso]);
    expect(script(box)).not.toContain("mount_tag=mirror");
    const media = join(box.top, "media");
    mkdirSync(join(media, "alt-mirror"), { recursive: true });
    configure(box, "MEMORY=64M\nPORT=\nMEDIA_MIRROR=/alt-mirror\n");
    await box.ok(["run", iso.haltIso], { env: checkMedia(box, `MEDIA=${media}\n`) });
    expect(script(box)).toMatch(new RegExp(`path=${media}/alt-mirror,.*readonly=on.*\n.*mount_tag=mirror`));
    configure(box, "MEMORY=64M\nPORT=\n");
    await box.ok(["run", iso.haltIso], { env: checkMedia(box, `MEDIA=${media}\n`) });
    expect(script(box)).toMatch(new RegExp(`path=${media},.*readonly=on.*\n.*mount_tag=mirror`));
    const { stderr } = await box.ok(["run", iso.haltIso], { env: checkMedia(box, "false\n") });
    expect(stderr).toContain("check-media failed");
    expect(script(box)).not.toContain("mount_tag=mirror");
  });

  test("macros in shares and images; a path may follow them", async () => {
    using box = await made();
    const media = join(box.top, "media");
    mkdirSync(join(media, "mirror/p10"), { recursive: true });
    mkdirSync(box.path("sub"));
    writeFileSync(join(media, "extra.img"), Buffer.alloc(1 << 20));
    configure(box, "MEMORY=64M\nCORES=1\nPORT=\nMEDIA_MIRROR=/mirror\n");
    const shares = ["a:@HOSTDIR@/sub", "b:rw:@DATADIR@/deep", "c:@MIRROR@/p10", "d:@MEDIA@", "e:@INDIR@"];
    const options = shares.map((share) => `--share=${share}`);
    await box.ok([...options, "--image=VIRT=raw=@MEDIA@/extra.img", "run", iso.haltIso], {
      env: checkMedia(box, `MEDIA=${media}\n`),
    });
    const path = (tag: string): string =>
      new RegExp(`path=([^,]*),.*\n.*mount_tag=${tag}\\b`).exec(script(box))?.[1] ?? "";
    expect(["a", "b", "c", "d", "e"].map(path)).toEqual([
      box.path("sub"),
      join(box.work, ".out/deep"),
      join(media, "mirror/p10"),
      media,
      join(box.work, ".in"),
    ]);
    expect(script(box)).toContain(`"filename":"${media}/extra.img"`);
  });

  test("relative images: typed ones are relative to the current directory, then to WORKDIR", async () => {
    using box = smallSandbox();
    writeFileSync(join(box.home, "data.img"), Buffer.alloc(1 << 20));
    await box.ok(["-d", box.host, "create", "-i", "VIRT=raw=data.img", "G", iso.haltIso], { cwd: box.home });
    await box.ok(["run", iso.haltIso]);
    expect(script(box)).toContain(`"filename":"${box.home}/data.img"`);
    writeFileSync(join(box.work, "more.img"), Buffer.alloc(1 << 20));
    await box.ok(["-i", "SCSI=raw=more.img", "run", iso.haltIso]);
    expect(script(box)).toContain(`"filename":"${box.work}/more.img"`);
  });

  test("options clear and extend the lists of files", async () => {
    using box = await made(["-f", "tcp::34567-:22", "-s", `home:/usr`]);
    expect(box.read(".work/guest.env")).toContain('FORWARDS="hostfwd=tcp::34567-:22"');
    await box.ok(["-f", "", "-s", "", "-s", "only:/usr/share", "run", iso.haltIso]);
    expect(script(box)).not.toContain("hostfwd");
    expect(script(box).match(/mount_tag=[^\s,]+/g)).toEqual(["mount_tag=only"]);
    await box.ok(["-f", "udp:127.0.0.1:34568-:53", "run", iso.haltIso]);
    expect(script(box)).toMatch(/hostfwd=tcp::34567-:22,hostfwd=udp:127\.0\.0\.1:34568-:53/);
    await box.ok(["--no-netdev", "run", iso.haltIso]);
    expect(script(box)).not.toMatch(/-netdev|virtio-net/);
  });

  test("abbreviated, separated and clustered options", async () => {
    using box = smallSandbox();
    const { stdout } = await box.ok(["--mem", "70M", "--core=2", "-kS2", "-c3", "-p", "", "-h"]);
    expect(stdout).toMatch(/\[70M\]/);
    expect(stdout).toMatch(/--sockets=N .*\[2\]/);
    expect(stdout).toMatch(/--cores=N .*\[3\]/);
  });

  test("stores --no-netdev given to create", async () => {
    using box = await made(["--no-netdev"]);
    await box.ok(["run", iso.haltIso]);
    expect(readFileSync(box.path(".work/run-vm.sh"), "utf8")).not.toContain("-netdev");
  });
});
