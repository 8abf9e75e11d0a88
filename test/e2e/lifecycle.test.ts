/** The life cycle of a VM: create, run, backup, restore, destroy with a BIOS guest that counts its boots. */
import { beforeAll, expect, test } from "bun:test";
import { cpSync, existsSync, lstatSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Guests } from "../guests/build.ts";
import { DISK_BUSES } from "../../src/machine/types.ts";
import { guests, until } from "./harness.ts";
import {
  configure,
  expectError,
  installed,
  listing,
  mode,
  names,
  runNumber,
  sampled,
  smallSandbox,
  startUntil,
  suite,
} from "./tools.ts";

let iso: Guests;

suite("lifecycle", () => {
  beforeAll(async () => {
    iso = await guests();
  });

  test("create writes working files that only the owner can read, and nothing else", async () => {
    using box = smallSandbox();
    await box.ok(["--disks=VIRT=16M,NVME=32M", "create", "G", iso.installerIso]);
    expect(names(box.host)).toEqual([".work"]);
    expect(names(box.tmp)).toHaveLength(1);
    expect(readlinkSync(box.path(".work", ".host"))).toBe(box.host);
    expect(mode(box.work)).toBe("700");
    for (const name of ["disk-0.img", "disk-1.img", "guest.env", "FIRSTTIME", ".vm.json"])
      expect(`${name} ${mode(join(box.work, name))}`).toBe(`${name} 600`);
    expect(box.read(".work/guest.env")).toContain(
      'IMAGES=(\n    "VIRT=disk-0.img"\n    "NVME=disk-1.img"\n)\n',
    );
    expect(await box.leftovers()).toEqual([]);
  });

  test("guest.env is plain bash, with every value in double quotes", async () => {
    using box = smallSandbox();
    const name = `He said "$HOME" \`id\` \\ 'it' — Привет`;
    await box.ok(["-f", "hostfwd=tcp::5555-:22", "create", name, iso.installerIso]);
    const file = box.path(".work", "guest.env");
    const shown =
      await Bun.$`bash -euc ${'. "$0"; printf "%s|" "$GUESTNAME" "$FORWARDS" "${SHARES[@]}"'} ${file}`.text();
    expect(shown).toBe(`${name}|hostfwd=tcp::5555-:22|mirror:@MIRROR@|in:@HOSTDIR@|out:rw:@DATADIR@|`);
    expect(box.read(".work/guest.env")).not.toMatch(
      /^(SSHKEYS|MEDIA_\w+|PROFILES|LIBEXEC|OVMF_\w+|CLR_\w+|TIMEOUT)=/m,
    );
    await box.ok(["--no-netdev", "run"]);
    expect(box.read(".work/run-vm.sh")).toContain("Привет");
  });

  test.each(sampled(DISK_BUSES))("%s: the CD boots once, the disk afterwards", async (bus) => {
    using box = smallSandbox();
    await box.ok([`--disks=${bus}=16M`, "create", "G", iso.installerIso]);
    await box.ok(["run"]);
    expect(box.console()).toBe("BOOTED FROM CD\nINSTALLED\n");
    expect(box.read(".work/run-vm.sh")).toContain("-no-reboot");
    expect(existsSync(box.path(".work/FIRSTTIME"))).toBe(false);
    await box.ok(["run"]);
    expect(box.console()).toBe("BOOTED FROM DISK\nRUN 1\n");
    expect(box.read(".work/run-vm.sh")).not.toMatch(/drive=cd0|installer\.iso|-no-reboot/);
  });

  test("several disks of different kinds: boots the first one, stores all", async () => {
    // The first two once more: each kind counts its own disks.
    const buses = [...DISK_BUSES.toReversed(), ...DISK_BUSES.slice(0, 2)];
    const disks = buses.map((bus, index) => `${bus}=${16 * (index + 1)}M`);
    using box = await installed([`--disks=${disks.join()}`]);
    await box.ok(["@backup", "@destroy", "@run"]);
    expect(runNumber(box)).toBe(2);
    const sizes = await Promise.all(
      buses.map(async (_bus, n) => {
        const info = await Bun.$`qemu-img info --output=json ${box.path(".work", `disk-${n}.img`)}`.json();
        return info["virtual-size"] / (1 << 20);
      }),
    );
    expect(sizes).toEqual(buses.map((_bus, index) => 16 * (index + 1)));
  });

  test("the counter on the disk identifies the restored state", async () => {
    using box = await installed();
    await box.ok(["@backup", "one", "@run", "@backup", "two", "@run"]);
    expect(runNumber(box)).toBe(3);
    await box.ok(["@restore", "one", "@run"]);
    expect(runNumber(box)).toBe(2);
    await box.ok(["@restore", "@run"]);
    expect(runNumber(box)).toBe(3);
    expect(await box.leftovers()).toEqual([]);
    expect(names(box.tmp)).toHaveLength(1);
  });

  test("run without working files restores the last snapshot, and reports it", async () => {
    using box = await installed();
    await box.ok(["@backup", "@destroy"]);
    expect(names(box.tmp)).toEqual([]);
    const { stderr } = await box.ok([]);
    expect(stderr).toMatch(/has no working files/);
    expect(stderr).toMatch(/restor\w+ S0/);
    expect(runNumber(box)).toBe(2);
  });

  test("missing working files: run reports since when", async () => {
    using box = await installed();
    await box.ok(["backup"]);
    const made = lstatSync(box.path(".work")).mtime;
    const workdir = box.work;
    rmSync(workdir, { recursive: true });
    const { stderr } = await box.ok(["run"]);
    expect(stderr).toContain(workdir);
    expect(stderr).toMatch(/are gone/);
    expect(stderr).toContain(String(made.getFullYear()));
    expect(runNumber(box)).toBe(2);
  });

  test("a keep-cd VM has its CD in the drive afterwards, but boots its disk", async () => {
    using box = smallSandbox();
    await box.ok(["--keep-cd", "@create", "G", iso.installerIso, "@run", "@run"]);
    expect(runNumber(box)).toBe(1);
    expect(box.read(".work/guest.env")).toContain('KEEPCD="1"');
    expect(box.read(".work/run-vm.sh")).toMatch(/installer\.iso/);
    await box.ok(["--no-keep-cd", "run"]);
    expect(box.read(".work/run-vm.sh")).not.toMatch(/installer\.iso/);
    expect(runNumber(box)).toBe(2);
  });

  test("a CD given later is booted once", async () => {
    using box = await installed();
    await box.ok(["run", iso.haltIso]);
    expect(box.console()).toBe("BOOTED FROM CD\n");
    await box.ok([iso.haltIso]);
    expect(box.console()).toBe("BOOTED FROM CD\n");
    await box.ok(["run"]);
    expect(runNumber(box)).toBe(2);
  });

  test("finds a CD in HOSTDIR too", async () => {
    using box = smallSandbox();
    cpSync(iso.haltIso, box.path("my cd.iso"));
    await box.ok(["-d", box.host, "@create", "G", "my cd.iso", "@run"], { cwd: box.home });
    expect(box.console()).toBe("BOOTED FROM CD\n");
  });

  test("a failed first run is repeated", async () => {
    using box = smallSandbox();
    await box.ok(["create", "G", iso.hangIso]);
    const run = await startUntil(box, ["run"], "HANGING");
    run.kill("SIGINT");
    await until("the program's answer", () => run.stderr().includes("requested the guest to power off"));
    run.kill("SIGINT");
    expect((await run.done).status).toBe(130);
    expect(existsSync(box.path(".work/FIRSTTIME"))).toBe(true);
  });

  test("in place: everything is in HOSTDIR; destroy keeps settings, snapshots and the user's files", async () => {
    using box = await installed(["--inplace"]);
    box.write("notes.txt", "mine");
    expect(readlinkSync(box.path(".work"))).toBe(".");
    expect(names(box.tmp)).toEqual([]);
    expect(names(box.host)).toContain("disk-0.img");
    await box.ok(["@backup", "@run", "@restore"]);
    expect(names(box.tmp)).toEqual([]);
    await box.ok(["run"]);
    expect(runNumber(box)).toBe(2);
    await box.ok(["destroy"]);
    expect(names(box.host)).toEqual(["backups", "guest.env", "notes.txt"]);
    await box.ok(["--inplace", "@restore", "@run"]);
    expect(runNumber(box)).toBe(2);
    expect(names(box.tmp)).toEqual([]);
  });

  test("a VM moves between TMPDIR and HOSTDIR by restore", async () => {
    using box = await installed();
    await box.ok(["backup"]);
    await box.ok(["--inplace", "restore"]);
    expect(names(box.tmp)).toEqual([]);
    await box.ok(["run"]);
    expect(runNumber(box)).toBe(2);
    await box.ok(["--use-tmpdir", "restore"]);
    expect(names(box.host)).toEqual([".work", "backups", "guest.env"]);
    await box.ok(["run"]);
    expect(runNumber(box)).toBe(2);
  });

  test("destroy removes only the working files, and warns of changes without a snapshot", async () => {
    using box = await installed();
    box.write("notes.txt", "mine");
    await box.ok(["backup"]);
    const kept = listing(box.path("backups"));
    await box.ok(["run"]);
    const { stderr } = await box.ok(["destroy"]);
    expect(stderr).toMatch(/warning: .*after the last snapshot S0/);
    expect(names(box.host)).toEqual(["backups", "guest.env", "notes.txt"]);
    expect(listing(box.path("backups"))).toEqual(kept);
    expect(names(box.tmp)).toEqual([]);
    expect((await box.ok(["destroy"])).stderr).toMatch(/nothing to destroy|no working files/);
  });

  test("a batch stops at its first failure", async () => {
    using box = await installed();
    const result = await box.vm(["@backup", "A", "@backup", "A", "@destroy"]);
    expectError(result, 73, /A exists already/);
    expect(result.stderr.match(/^\*\*\* Executing command: /gm)).toHaveLength(2);
    expect(names(box.path("backups"))).toEqual(["A", "LAST"]);
    expect(existsSync(join(box.work, "disk-0.img"))).toBe(true);
  });

  test("each command of a batch reads guest.env again", async () => {
    using box = smallSandbox();
    configure(box, "PORT=\nDISKS=(AHCI=16M)\n");
    await box.ok(["-m", "80M", "-c", "3", "create", "G", iso.installerIso]);
    await box.ok(["run"]);
    expect(box.read(".work/run-vm.sh")).toMatch(/-smp 3,.*\n.*-m 80M/);
    await box.ok(["-m", "96M", "run"]);
    expect(box.read(".work/run-vm.sh")).toContain("-m 96M");
    await box.ok(["run"]);
    expect(box.read(".work/run-vm.sh")).toContain("-m 80M");
  });

  test.each([
    ["--share=data:.", "mount_tag=data", true],
    ["--forward=tcp:127.0.0.1:34571-:22", "hostfwd=tcp:127.0.0.1:34571-:22", true],
    // [compat] Options for `create` itself follow it.
    ["--image=VIRT=raw=extra.img", "extra.img", false],
  ])("%s applies to a whole batch, once", async (option, argument, kept) => {
    using box = smallSandbox();
    writeFileSync(box.path("extra.img"), Buffer.alloc(1 << 20));
    await box.ok([option, "@create", "G", iso.installerIso, "@run"]);
    expect(box.read(".work/run-vm.sh").split(argument)).toHaveLength(2);
    await box.ok(["run"]);
    expect(box.read(".work/run-vm.sh").split(argument)).toHaveLength(kept ? 2 : 1);
  });

  test("README: vm -c 8 -m 4G @create WS10 ISO @run @backup", async () => {
    using box = smallSandbox();
    const { stderr } = await box.ok([
      "-c",
      "8",
      "-m",
      "4G",
      "@create",
      "WS10",
      iso.installerIso,
      "@run",
      "@backup",
    ]);
    expect(stderr).toContain(`*** Executing command: create('WS10', '${iso.installerIso}')...\n`);
    expect(stderr).toContain("*** Executing command: run()...\n");
    expect(stderr).toContain("*** Executing command: backup()...\n");
    expect(readlinkSync(box.path("backups/LAST"))).toBe("S0");
    const env = box.read("backups/S0/guest.env");
    for (const line of ['GUESTNAME="WS10"', 'CORES="8"', 'MEMORY="4G"', `ISO="${iso.installerIso}"`])
      expect(env).toContain(line);
    expect(box.console()).toBe("BOOTED FROM CD\nINSTALLED\n");
  });

  test("README: vm --no-uefi --tmeout=30 @restore S2", async () => {
    using box = await installed();
    await box.ok(["@backup", "@backup", "@run", "@backup", "@run", "@backup"]);
    await box.ok(["--no-uefi", "--tmeout=30", "@restore", "S2"]);
    await box.ok(["run"]);
    expect(runNumber(box)).toBe(3);
  });
});
