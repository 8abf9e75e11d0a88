import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { Sandbox } from "../fixtures/sandbox.ts";

const VERSION = "6.9.1-test";
const SIGNATURE = "~Module signature appended~\n";

/** ELF header of an x86-64 program without dependencies. */
function elf(): Buffer<ArrayBuffer> {
  const head = Buffer.alloc(128);
  head.write("\x7fELF\x02\x01\x01", "latin1");
  head.writeUInt16LE(62, 18);
  head.writeUInt16LE(56, 54);
  return head;
}

/** The boot image of a kernel (Linux, Documentation/arch/x86/boot.rst). */
function bootImage(): Buffer {
  const bytes = Buffer.alloc(4096);
  bytes.write("HdrS", 0x202, "latin1");
  bytes.writeUInt16LE(0x20f, 0x206);
  bytes.writeUInt16LE(0x200, 0x20e);
  // XLF_KERNEL_64
  bytes.writeUInt16LE(1, 0x236);
  bytes.write(`${VERSION} (builder)\0`, 0x400, "latin1");
  return bytes;
}

/** A directory with the unpacked packages of a small system. */
function unpacked(box: Sandbox): string {
  const root = join(box.top, "system");
  const program = (path: string, content: Uint8Array | string): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
    chmodSync(join(root, path), 0o755);
  };
  program("usr/bin/busybox", Buffer.concat([elf(), Buffer.from("[\0[[\0cat\0ls\0vi\0\0")]));
  program("usr/bin/bash", elf());
  program("usr/bin/ldd", "#!/bin/sh\n");
  program("usr/bin/perl-script", "#!/usr/bin/perl\n");
  program("usr/sbin/modprobe", elf());
  // One that needs libraries: a program of this host.
  program("usr/bin/sleep", readFileSync(realpathSync(Bun.which("sleep")!)));
  for (const path of ["usr/lib/x86_64-linux-gnu/libc.so.6", "lib64/ld-linux-x86-64.so.2"])
    program(path, elf());
  program(`boot/vmlinuz-${VERSION}`, bootImage());
  program(`boot/config-${VERSION}`, "CONFIG_MODULE_SIG=y\n");
  const modules = `lib/modules/${VERSION}`;
  program(`${modules}/modules.dep`, "kernel/net/9p/9pnet_virtio.ko.gz:\nkernel/fs/9p/9p.ko:\n");
  program(`${modules}/modules.builtin`, "kernel/drivers/virtio/virtio_pci.ko\n");
  program(`${modules}/kernel/net/9p/9pnet_virtio.ko.gz`, Bun.gzipSync(elf()));
  const signature = Buffer.alloc(12);
  signature.writeUInt32BE(16, 8);
  program(
    `${modules}/kernel/fs/9p/9p.ko`,
    Buffer.concat([elf(), Buffer.alloc(16), signature, Buffer.from(SIGNATURE)]),
  );
  return root;
}

/** Names of files in a rescue's initramfs. */
const listInitrd = (path: string): string[] =>
  Bun.spawnSync(["sh", "-c", 'busybox cpio -t <"$0"', path]).stdout.toString().split("\n").filter(Boolean);

const build = (box: Sandbox, root: string, ...words: string[]) =>
  box.vm("--arch=x86_64", "rescue", "build", "--name=r", `--root=${root}`, ...words);

describe("rescue build --root", () => {
  test("uses kernel, modules and programs of the other system; a rebuild keeps its settings", async () => {
    using box = new Sandbox();
    const root = unpacked(box);
    const profile = join(box.home, "vm/r");
    expect(await build(box, root)).toMatchObject({ status: 0, stderr: expect.stringContaining(VERSION) });
    expect(readdirSync(profile).toSorted()).toEqual(["guest.env", "initrd.img", "vmlinuz"]);
    expect(statSync(join(profile, "initrd.img")).mode & 0o777).toBe(0o600);
    const names = listInitrd(join(profile, "initrd.img"));
    expect(names).toEqual(
      expect.arrayContaining([
        "usr/bin/bash",
        "usr/bin/busybox",
        "usr/bin/cat",
        "usr/bin/sleep",
        `usr/lib/modules/${VERSION}/kernel/fs/9p/9p.ko`,
        `usr/lib/modules/${VERSION}/kernel/net/9p/9pnet_virtio.ko`,
        "usr/lib/x86_64-linux-gnu/libc.so.6",
        "usr/lib/rescue/modprobe",
      ]),
    );
    expect(names).not.toContain("usr/bin/perl-script");
    const out = join(box.top, "extracted");
    mkdirSync(out);
    Bun.spawnSync(["sh", "-c", 'busybox cpio -id <"$0"', join(profile, "initrd.img")], { cwd: out });
    // Verifying a signature takes longer than loading the module.
    expect(readFileSync(join(out, `usr/lib/modules/${VERSION}/kernel/fs/9p/9p.ko`))).toEqual(elf());
    expect(readlinkSync(join(out, "usr/bin/ls"))).toBe("busybox");
    box.write(
      join(profile, "guest.env"),
      `${readFileSync(join(profile, "guest.env"), "utf8")}RESCUE_MEMORY=1G\n`,
    );
    box.write(join(profile, "note"), "mine");
    expect(await build(box, root, "--compress=gzip")).toMatchObject({ status: 0 });
    expect(readFileSync(join(profile, "guest.env"), "utf8")).toContain("RESCUE_MEMORY=1G");
    expect(existsSync(join(profile, "note"))).toBe(true);
    expect(readFileSync(join(profile, "initrd.img")).subarray(0, 2)).toEqual(Buffer.of(0x1f, 0x8b));
    await box.ends(0, "rescue list", /r +own +.*usable/);
  });

  test.each<[what: string, spoil: (root: string) => unknown, status: number, printed: string]>([
    ["no busybox", (root) => rmSync(join(root, "usr/bin/busybox")), 66, "busybox"],
    ["no bash", (root) => rmSync(join(root, "usr/bin/bash")), 69, "bash"],
    ["no modprobe", (root) => rmSync(join(root, "usr/sbin/modprobe")), 69, "modprobe"],
    ["no kernel", (root) => rmSync(join(root, "boot"), { recursive: true }), 69, "kernel"],
    ["no modules", (root) => rmSync(join(root, "lib/modules"), { recursive: true }), 69, VERSION],
    [
      "programs of another architecture",
      (root) => {
        const other = elf();
        other.writeUInt16LE(183, 18);
        writeFileSync(join(root, "usr/bin/busybox"), other);
      },
      69,
      "aarch64",
    ],
    [
      "an invalid busybox",
      (root) => copyFileSync(join(root, "usr/bin/ldd"), join(root, "usr/bin/busybox")),
      69,
      "not a program",
    ],
  ])("with %s: builds nothing", async (_what, spoil, status, printed) => {
    using box = new Sandbox();
    const root = unpacked(box);
    spoil(root);
    const result = await build(box, root);
    expect({ ...result }).toMatchObject({ status });
    expect(result.stderr).toContain(printed);
    expect(readdirSync(join(box.home, "vm"))).toEqual([]);
  });

  test("refuses a PROFILES that other users can change, or that is a file (73)", async () => {
    using box = new Sandbox();
    const root = unpacked(box);
    const profiles = join(box.home, "vm");
    mkdirSync(profiles);
    chmodSync(profiles, 0o777);
    expect(await build(box, root)).toMatchObject({ status: 73, stderr: expect.stringContaining("PROFILES") });
    rmSync(profiles, { recursive: true });
    box.configure(`PROFILES=${box.write("file", "")}\n`);
    expect(await build(box, root)).toMatchObject({
      status: 73,
      stderr: expect.stringContaining("is not a directory"),
    });
  });

  test("a job with --rescue=auto builds the rescue first, only once", async () => {
    using box = new Sandbox();
    await box.ok("create", "G");
    box.write("check.job", "true\n");
    const profile = join(box.home, "vm/rescue-x86_64");
    for (const name of ["vmlinuz", "initrd.img"]) box.write(join(profile, name), name);
    box.write(join(profile, "guest.env"), "RESCUE_KERNEL=vmlinuz\nRESCUE_INITRD=initrd.img\n");
    box.qemu = { refuse: { status: 1, words: "it was started" } };
    await box.ends(74, "--rescue=auto job check", "it was started");
  });
});
