/** qcow2 snapshots: contents, parents, and working disks that are overlays on them. */
import { expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { backing, content, DISK, filled, manifest, run, write } from "./images.ts";
import { until } from "./harness.ts";
import { allocated, configure, expectError, mode, names, suite } from "./tools.ts";

suite("qcow2 snapshots", () => {
  test("a second one has only changes, and all restore unchanged, at once", async () => {
    using box = await filled();
    await box.ok(["backup"]);
    const first = await content(box);
    await write(box, "write -P 2 8M 4M", "discard 13M 2M");
    await box.ok(["backup"]);
    const second = await content(box);
    await write(box, "write -P 3 50M 1M");
    await box.ok(["backup"]);
    const third = await content(box);
    expect(manifest(box, "S0")).toMatchObject({ format: "qcow2", consistency: "offline" });
    expect(manifest(box, "S0").parent).toBeUndefined();
    expect(manifest(box, "S1").parent).toBe("S0");
    expect(manifest(box, "S2").parent).toBe("S1");
    expect(names(box.path("backups/S1"))).toContain("disk-0.qcow2");
    expect(mode(box.path("backups/S1/disk-0.qcow2"))).toBe("400");
    expect((await box.ok(["verify", "--all", "--deep"])).stdout).not.toContain("BAD");
    for (const [name, was] of [
      ["S1", second],
      ["S0", first],
      ["S2", third],
    ] as const) {
      await box.ok(["restore", name]);
      expect(await backing(join(box.work, DISK))).toBe(`.host/backups/${name}/disk-0.qcow2`);
      expect(allocated(join(box.work, DISK))).toBeLessThan(1 << 20);
      expect(await content(box)).toBe(was);
    }
  });

  test("drops bitmaps that prevent qemu from opening the disk, with a warning; the guest's data is kept", async () => {
    using box = await filled();
    await box.ok(["backup"]);
    const disk = join(box.work, DISK);
    const was = await content(box);
    /** As left by qemu if it cannot write the directory: found by its entry's name. */
    const breakBitmaps = (): void => {
      const bytes = readFileSync(disk);
      const at = bytes.indexOf(`vm-${manifest(box, names(box.path("backups")).at(-1)!).id}`);
      expect(at).toBeGreaterThan(24);
      bytes.fill(0, at - 24, at + 24);
      writeFileSync(disk, bytes);
    };
    breakBitmaps();
    expect((await run(["qemu-img", "info", disk], true)).stdout).toBe("");
    const second = await box.ok(["backup"]);
    expect(second.stderr).toMatch(
      /warning: removed an unreadable dirty bitmap from \S+disk-0.img: the next snapshot will be a full one/,
    );
    expect(manifest(box, "S1").parent).toBeUndefined();
    expect(await content(box)).toBe(was);
    await box.ok(["backup"]);
    expect(manifest(box, "S2").parent).toBe("S1");
    breakBitmaps();
    // `run` does the same; this one ends at once, as nothing can be booted.
    const started = box.start(["run", "--detach"]);
    expect((await started.done).stderr).toContain("the next snapshot will be a full one");
    await box.vm(["stop", "--force"]);
    expect(await content(box)).toBe(was);
  });

  test("after a restore the next one has the changes since then, and so on", async () => {
    using box = await filled();
    await box.ok(["backup", "base"]);
    await write(box, "write -P 2 8M 4M");
    await box.ok(["backup", "later"]);
    await box.ok(["restore", "base"]);
    await write(box, "write -P 5 40M 1M");
    const was = await content(box);
    await box.ok(["backup", "branch"]);
    expect(manifest(box, "branch").parent).toBe("base");
    await box.ok(["@destroy", "@restore", "branch"]);
    expect(await content(box)).toBe(was);
  });

  test("after a crash has invalidated the bitmaps, the overlay itself has the changes; else a full one is made", async () => {
    using box = await filled();
    await box.ok(["backup", "base"]);
    // Not closed: qemu finds the bitmaps in use, and marks them inconsistent.
    await run(
      ["qemu-io", "-f", "qcow2", "-c", "write -P 2 8M 4M", "-c", "sigraise 9", join(box.work, DISK)],
      true,
    );
    await box.ok(["backup", "whole"]);
    expect(manifest(box, "whole").parent).toBeUndefined();
    await box.ok(["restore", "base"]);
    await run(
      ["qemu-io", "-f", "qcow2", "-c", "write -P 4 9M 4M", "-c", "sigraise 9", join(box.work, DISK)],
      true,
    );
    const was = await content(box);
    await box.ok(["backup", "top"]);
    expect(manifest(box, "top").parent).toBe("base");
    await box.ok(["restore", "top"]);
    expect(await content(box)).toBe(was);
  });

  test("--full makes a full one; --copy makes a standalone disk, with a bitmap", async () => {
    using box = await filled();
    await box.ok(["@backup", "@backup", "--full"]);
    expect(manifest(box, "S1").parent).toBeUndefined();
    const was = await content(box);
    await box.ok(["restore", "S1", "--copy"]);
    expect(await backing(join(box.work, DISK))).toBeUndefined();
    expect(await content(box)).toBe(was);
    await box.ok(["@backup", "@snapshots", "rm", "S0"]);
    expect(manifest(box, "S2").parent).toBe("S1");
    // From an incremental one, too.
    await box.ok(["restore", "S2", "--copy"]);
    expect(await backing(join(box.work, DISK))).toBeUndefined();
    expect(await content(box)).toBe(was);
  });

  test("limits a chain: then a full one is made", async () => {
    using box = await filled();
    configure(box, "MEMORY=64M\nPORT=\nSNAPSHOT_FORMAT=qcow2\nSNAPSHOT_CHAIN=3\n");
    for (let count = 0; count < 5; count++) await box.ok(["backup"]);
    const parents = [0, 1, 2, 3, 4].map((n) => manifest(box, `S${n}`).parent);
    expect(parents).toEqual([undefined, "S0", "S1", undefined, "S3"]);
  });

  test("cannot remove the parent of a snapshot or a working disk", async () => {
    using box = await filled();
    await box.ok(["@backup", "@backup", "@restore", "S1"]);
    const parent = await box.vm(["snapshots", "rm", "S0"]);
    expectError(parent, 75, /S1 builds on S0/);
    const own = await box.vm(["snapshots", "rm", "S1"]);
    expectError(own, 75, /the working disk disk-0\.img builds on S1/);
  });

  test("a gz snapshot of such a disk is standalone, and later ones still depend on the images", async () => {
    using box = await filled();
    await box.ok(["@backup", "@restore"]);
    await write(box, "write -P 6 1M 1M");
    const was = await content(box);
    await box.ok(["backup", "alone", "--format=gz"]);
    await box.ok(["backup", "next"]);
    expect(manifest(box, "next").parent).toBe("S0");
    await box.ok(["restore", "alone"]);
    expect(await backing(join(box.work, DISK))).toBeUndefined();
    expect(await content(box)).toBe(was);
  });

  test("of a moved VM: its disks find their backing files", async () => {
    using box = await filled();
    await box.ok(["@backup", "@restore"]);
    await write(box, "write -P 6 1M 1M");
    const was = await content(box);
    const moved = join(box.top, "another name");
    const work = readlinkSync(box.path(".work"));
    renameSync(box.host, moved);
    await box.ok(["backup"], { cwd: moved });
    expect(readlinkSync(join(work, ".host"))).toBe(moved);
    await box.ok(["@verify", "--all", "@restore"], { cwd: moved });
    expect(await content(box, join(moved, ".work", DISK))).toBe(was);
  });

  test("its qemu is no guest: the VM counts as off meanwhile, and a killed one is waited for", async () => {
    using box = await filled();
    const backup = box.start(["backup", "--rate-limit=1M"]);
    const status = async () => JSON.parse((await box.ok(["status", "--json"])).stdout).state;
    const copy = box.path("backups/.vm-partial-S0/disk-0.qcow2");
    // Observed from outside: a probe that opens the disk would take the lock that qemu needs
    const held = ["sh", "-c", 'find /proc/[0-9]*/fd -lname "$0"', realpathSync(join(box.work, DISK))];
    await until("qemu has the disk", () => existsSync(copy) && Bun.spawnSync(held).stdout.length > 0);
    expect(await status()).toBe("created");
    backup.kill("SIGKILL");
    await backup.done;
    await box.ok(["backup"]);
    expect(names(box.path("backups"))).toEqual(["LAST", "S0"]);
  });

  test("in place, and with special characters", async () => {
    using box = await filled(["--inplace"]);
    const name = `it's 1, "odd":=ё`;
    await box.ok(["backup", name]);
    const was = await content(box);
    await write(box, "write -P 6 1M 1M");
    await box.ok(["@backup", "@restore", name]);
    expect(await content(box)).toBe(was);
    await write(box, "write -P 9 1M 1M");
    await box.ok(["backup"]);
    expect(manifest(box, "S1").parent).toBe(name);
  });

  test("accepts a disk only if its backing file is the same disk of a snapshot here", async () => {
    using box = await filled();
    await box.ok(["@backup", "@restore"]);
    const disk = join(box.work, DISK);
    const outside = join(box.top, "outside.qcow2");
    await run(["qemu-img", "create", "-q", "-f", "qcow2", outside, "64M"]);
    await run(["qemu-img", "rebase", "-u", "-F", "qcow2", "-b", outside, disk]);
    expectError(await box.vm(["backup"]), 74, /refusing /);
    await run(["qemu-img", "rebase", "-u", "-F", "qcow2", "-b", ".host/backups/S0/disk-0.qcow2", disk]);
    const image = box.path("backups/S0/disk-0.qcow2");
    chmodSync(image, 0o600);
    await run(["qemu-img", "rebase", "-u", "-F", "qcow2", "-b", outside, image]);
    expectError(await box.vm(["run"]), 74, /refusing /);
    expectError(await box.vm(["restore"]), 74, /refers to the backing file /);
    rmSync(image);
    symlinkSync(outside, image);
    expectError(await box.vm(["restore"]), 74, /is no (regular )?file/);
  });

  test("does not restore a snapshot with a missing or damaged parent", async () => {
    using box = await filled();
    await box.ok(["@backup", "@backup"]);
    const before = readlinkSync(box.path(".work"));
    renameSync(box.path("backups/S0"), join(box.top, "S0"));
    expectError(await box.vm(["restore"]), 74, /"S0" is missing/);
    expect((await box.vm(["snapshots"])).stdout).toContain("damaged");
    expect(await box.vm(["verify"])).toMatchObject({ status: 74 });
    renameSync(join(box.top, "S0"), box.path("backups/S0"));
    await run(["truncate", "-s", "-1", box.path("backups/S0/disk-0.qcow2")]);
    expectError(await box.vm(["restore"]), 74, /bytes instead of/);
    expect(readlinkSync(box.path(".work"))).toBe(before);
    await box.ok(["backup", "fresh"]);
    expect(manifest(box, "fresh").parent).toBeUndefined();
  });

  test("without space leaves nothing", async () => {
    using box = await filled();
    mkdirSync(box.path("backups"), { mode: 0o700 });
    await run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", box.path("backups")]);
    try {
      const full = await box.vm(["backup"]);
      expectError(full, 73, /no (room|space)/);
      expect(names(box.path("backups"))).toEqual([]);
    } finally {
      await run(["umount", box.path("backups")]);
    }
    await box.ok(["backup"]);
    expect(existsSync(box.path("backups/S0/disk-0.qcow2"))).toBe(true);
    expect(readFileSync(box.path("backups/S0/SHA256SUMS"), "utf8")).toContain("disk-0.qcow2");
  });
});
