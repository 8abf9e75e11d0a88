/** Directories, symlinks and files that have moved or changed. No guest runs. */
import { expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { binary, Sandbox } from "./harness.ts";
import { configure, expectError, rootTest, shell, smallSandbox, suite } from "./tools.ts";

suite("places:", () => {
  test("detects an unmounted filesystem of backups, although its mount point exists (74)", async () => {
    using box = smallSandbox();
    // Another filesystem on every Linux.
    const other = mkdtempSync("/dev/shm/vm-test-");
    try {
      symlinkSync(other, box.path("backups"));
      await box.ok(["@create", "G", "@backup", "S0"]);
      mkdirSync(join(box.top, "mnt"));
      rmSync(box.path("backups"));
      symlinkSync(join(box.top, "mnt"), box.path("backups"));
      for (const words of [["snapshots"], ["backup"], ["prune", "--keep-last=1"], ["restore"]])
        expectError(
          await box.vm(words),
          74,
          /backups is empty, and the last backup was on another filesystem/,
        );
      expect((await box.vm(["status"])).stdout).toContain("on another filesystem");
    } finally {
      rmSync(other, { recursive: true });
    }
  });

  test("backups as a symlink to itself: no internal error, and destroy works", async () => {
    using box = smallSandbox();
    await box.ok(["create", "G"]);
    symlinkSync("backups", box.path("backups"));
    for (const words of [["snapshots"], ["verify", "--all"], ["restore"]])
      expectError(await box.vm(words), 74, /backups is a symbolic link to backups/);
    await box.ok(["destroy"]);
  });

  test("a huge file instead of a small one of a snapshot is not read (74)", async () => {
    using box = smallSandbox();
    await box.ok(["@create", "G", "@backup"]);
    truncateSync(box.path("backups/S0/TS"), 2 ** 40);
    const { status, signal, stdout } = await box.vm(["verify"]);
    expect({ status, signal }).toEqual({ status: 74, signal: null });
    expect(stdout).toContain("TS: it is larger than 1.0 MiB");
  });

  test.each(["gone", "elsewhere"])("repairs a link back that is %s in place", async (how) => {
    using box = smallSandbox();
    await box.ok(["--inplace", "@create", "G", "@backup"]);
    rmSync(box.path(".host"));
    if (how === "elsewhere") symlinkSync("/nowhere", box.path(".host"));
    await box.ok(["restore"]);
    expect(readlinkSync(box.path(".host"))).toBe(".");
    rmSync(box.path(".host"));
    await box.ok(["destroy"]);
    expect(existsSync(box.path("disk-0.img"))).toBe(false);
  });

  test("a copy beside its original gets no hint that would take the original's disks", async () => {
    using box = smallSandbox();
    await box.ok(["create", "G"]);
    await shell("cp -a vm1 copy", box.top);
    const result = await box.vm(["backup"], { cwd: join(box.top, "copy") });
    expectError(result, 74, /of this copied VM/);
    expect(result.stderr).not.toContain("ln -s");
  });

  test("prune without a VM: 66", async () => {
    using box = smallSandbox();
    expectError(await box.vm(["prune", "--keep-last=1"]), 66, /there is no VM in/);
  });

  test("builds no rescue if other users can change PROFILES (73)", async () => {
    using box = new Sandbox();
    const open = join(box.top, "open");
    mkdirSync(open);
    chmodSync(open, 0o777);
    configure(box, `PROFILES='${open}'\n`);
    expectError(await box.vm(["rescue", "build"]), 73, /other users can write to/);
  });

  rootTest("another user's settings do not decide where root builds a rescue", async () => {
    using box = new Sandbox();
    const profiles = join(box.top, "theirs");
    mkdirSync(join(profiles, "rescue-x"), { recursive: true });
    writeFileSync(join(profiles, "rescue-x/guest.env"), "RESCUE_ISO=x.iso\n");
    box.write("guest.env", `GUESTNAME="x"\nPROFILES="${profiles}"\n`);
    for (const path of [box.host, box.path("guest.env")]) chownSync(path, 1234, 1234);
    const { stdout, stderr } = await box.vm(["rescue", "list"]);
    expect(stdout + stderr).not.toContain("theirs");
    expect(stdout + stderr).not.toContain("rescue-x ");
  });

  rootTest("another user cannot change root's VM: names its owner (73)", async () => {
    using box = smallSandbox();
    await box.ok(["create", "G"]);
    for (const path of [box.top, box.host, box.tmp]) chmodSync(path, 0o755);
    const program = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", binary];
    const env = { HOME: "/nonexistent", TMPDIR: "/tmp" };
    expectError(await box.vm(["backup"], { program, env }), 73, /belongs to root/);
    expect((await box.vm(["snapshots"], { program, env })).status).not.toBe(70);
    expect(lstatSync(box.host).uid).toBe(0);
  });
});
