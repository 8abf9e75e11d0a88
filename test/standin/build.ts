/**
 * A replacement for the ISO of ALT Rescue, made of Debian packages, as the real one may be unavailable to the tests.
 *
 *   const iso = await buildStandinIso(cacheDir); // half a minute and 130 MB of downloads the first time
 *
 * It has the layout that alt2deploy expects and boots by BIOS (isolinux) and UEFI (grub); both menus would boot the
 * hard disk after a minute. Its initramfs supports `automatic=`, `stagename=` and `lowmem`, and the system
 * `autorun=method:cdrom,label:,uuid:,directory:/recovery`. As in ALT Rescue, `sh` is bash, ssh is set up in
 * /etc/openssh, and there are `service`, `dhcpcd`, `mount-system`, `mount-fstab` and udev. No package's scripts are run.
 *
 * Needs the packages in STANDIN_PACKAGES, package lists and, once, the network. Root is not needed.
 */
import { createHash } from "node:crypto";
import {
  chmod,
  cp,
  exists,
  mkdir,
  mkdtemp,
  readdir,
  rename,
  rm,
  stat,
  symlink,
  unlink,
} from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";

/** The Debian packages that the build needs. */
export const STANDIN_PACKAGES: string[] =
  "busybox-static cpio grub-common grub-efi-amd64-bin isolinux kmod mtools squashfs-tools syslinux-common xorriso".split(
    " ",
  );

/** The packages of the rescue, without their dependencies. */
const CONTENTS = (
  "bash coreutils util-linux mount findutils sed grep gawk tar gzip xz-utils zstd diffutils hostname procps psmisc " +
  "debianutils login passwd base-files base-passwd libc-bin ncurses-base kmod udev busybox-static " +
  "e2fsprogs btrfs-progs dosfstools fdisk efibootmgr lvm2 dmsetup mdadm cryptsetup-bin rsync " +
  "openssh-server openssh-client openssh-sftp-server dhcpcd-base iproute2"
).split(" ");

/** Modules for the CD. */
const EARLY_MODULES =
  "virtio_pci ata_piix ahci virtio_blk virtio_scsi nvme sd_mod sr_mod isofs loop squashfs overlay".split(" ");
const MODULES = (
  `${EARLY_MODULES.join(" ")} virtio_console virtio_net virtio_rng e1000 af_packet 9pnet_virtio 9p efivarfs button evdev ` +
  "ext4 xfs btrfs f2fs vfat nls_ascii nls_cp437 nls_utf8 crc32c_generic dm_mod dm_crypt dm_mirror dm_snapshot " +
  "raid0 raid1 raid10 raid456 xts aesni_intel algif_skcipher sha256_generic"
).split(" ");

const ARGUMENTS =
  "fastboot live root=bootchain bootchain=fg,altboot automatic=method:cdrom stagename=rescue lowmem showopts";

/** The repository's files in the rescue: source → path. */
const PROGRAMS = {
  "stage2.sh": "usr/sbin/init",
  "service.sh": "usr/sbin/service",
  "power.sh": "usr/sbin/poweroff",
  "mount-system.sh": "usr/sbin/mount-system",
  "mount-fstab.sh": "usr/sbin/mount-fstab",
};

/** Files of the packages that are not needed. */
const LEFT_OUT = ["doc", "man", "info", "locale", "i18n", "lintian", "bug", "perl", "perl5", "zoneinfo"];

const sources = import.meta.dir;

/** @returns absolute path of the ISO; shared, must not be written to */
export async function buildStandinIso(cacheDir: string): Promise<string> {
  const cache = resolve(cacheDir);
  const final = join(cache, `standin-${await sourcesHash()}.iso`);
  if (await exists(final)) return final;
  await mkdir(join(cache, "debs", "partial"), { recursive: true });
  await sweep(cache);
  const temporary = await mkdtemp(join(cache, "building-"));
  try {
    await chmod(temporary, 0o755);
    const kernel = await unpackKernel(join(cache, "debs"), temporary);
    const tree = join(temporary, "tree");
    await mkdir(tree);
    const root = await makeRoot(join(cache, "debs"), temporary, kernel);
    await mkdir(join(tree, "boot/grub"), { recursive: true });
    const compressor = ["-comp", "zstd", "-Xcompression-level", "6"];
    await run([
      "mksquashfs",
      root,
      join(tree, "rescue"),
      ...compressor,
      "-all-root",
      "-no-progress",
      "-quiet",
    ]);
    await makeInitramfs(join(tree, "boot/full.cz"), join(temporary, "initramfs"), kernel);
    await cp(join(kernel.top, "boot", `vmlinuz-${kernel.version}`), join(tree, "boot/vmlinuz"));
    await makeIso(join(temporary, "standin.iso"), tree, temporary);
    await rename(join(temporary, "standin.iso"), final);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return final;
}

/** Removes the rest of a killed build. */
async function sweep(cache: string): Promise<void> {
  for (const name of (await readdir(cache)).filter((entry) => entry.startsWith("building-"))) {
    const { mtimeMs } = await stat(join(cache, name));
    if (Date.now() - mtimeMs > 1_800_000) await rm(join(cache, name), { recursive: true, force: true });
  }
}

async function sourcesHash(): Promise<string> {
  const hash = createHash("sha256");
  for (const name of (await readdir(sources)).toSorted()) {
    const text = await Bun.file(join(sources, name)).text();
    hash.update(`${name} ${text.length}\n${text}`);
  }
  return hash.digest("hex").slice(0, 16);
}

/** An unpacked kernel package: `boot` and `lib/modules`. */
interface Kernel {
  top: string;
  version: string;
}

async function unpackKernel(debs: string, temporary: string): Promise<Kernel> {
  const depends = await run(["apt-cache", "depends", "linux-image-amd64"]);
  const name = /Depends: (linux-image-\S+-amd64)$/m.exec(depends)?.[1];
  if (!name) throw new Error(`apt-cache names no kernel for linux-image-amd64:\n${depends}`);
  const find = async () => (await readdir(debs)).find((file) => file.startsWith(`${name}_`));
  if (!(await find()))
    await run(["apt-get", "download", "-o", "APT::Sandbox::User=root", name], { cwd: debs });
  const top = join(temporary, "kernel");
  await run(["dpkg-deb", "-x", join(debs, (await find())!), top]);
  const version = (await readdir(join(top, "lib/modules")))[0]!;
  await run(["depmod", "-b", top, version]);
  return { top, version };
}

/** Package files of CONTENTS and all dependencies, as for an empty system. */
async function downloadContents(debs: string, temporary: string): Promise<string[]> {
  const status = join(temporary, "status");
  await Bun.write(status, "");
  const settings = {
    "Dir::State::status": status,
    "Dir::Cache::archives": debs,
    "Dir::Cache::pkgcache": "",
    "Dir::Cache::srcpkgcache": "",
    "Debug::NoLocking": "true",
    "APT::Install-Recommends": "false",
    "APT::Sandbox::User": "root",
  };
  const options = Object.entries(settings).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
  const install = ["apt-get", ...options, "--yes", "install", ...CONTENTS];
  await run([...install, "--download-only"]);
  // Inst NAME (VERSION ORIGIN [ARCH])
  const plan = await run([...install, "--simulate"]);
  return [...plan.matchAll(/^Inst (\S+) \((\S+) .*\[(\S+)\]\)/gm)].map(([, name, version, arch]) =>
    join(debs, `${name}_${version!.replaceAll(":", "%3a")}_${arch}.deb`),
  );
}

async function makeRoot(debs: string, temporary: string, kernel: Kernel): Promise<string> {
  const root = join(temporary, "root");
  const empty =
    "dev etc/openssh mnt/autorun mnt/cdrom proc root run sys tmp usr/bin usr/lib usr/lib64 usr/sbin var/log";
  for (const dir of empty.split(" ")) await mkdir(join(root, dir), { recursive: true });
  for (const dir of ["bin", "sbin", "lib", "lib64"]) await symlink(`usr/${dir}`, join(root, dir));
  await symlink("openssh", join(root, "etc/ssh"));
  for (const deb of await downloadContents(debs, temporary)) {
    const contents = join(temporary, "contents.tar");
    await run(["dpkg-deb", "--fsys-tarfile", deb], { output: contents });
    // Through the symlinks that merge /bin and /usr/bin.
    const skip = LEFT_OUT.map((name) => `--exclude=./usr/share/${name}`);
    await run(["tar", "-xf", contents, "-C", root, "--keep-directory-symlink", "--no-same-owner", ...skip]);
  }
  for (const [source, place] of Object.entries(PROGRAMS)) {
    await rm(join(root, place), { force: true });
    await cp(join(sources, source), join(root, place));
    await chmod(join(root, place), 0o755);
  }
  await cp(join(root, "usr/sbin/poweroff"), join(root, "usr/sbin/reboot"));
  await cp(join(sources, "sshd_config"), join(root, "etc/openssh/sshd_config"));
  await addAccounts(root);
  // From dash.
  await unlink(join(root, "usr/bin/sh")).catch(() => {});
  await symlink("bash", join(root, "usr/bin/sh"));
  await symlink("gawk", join(root, "usr/bin/awk")).catch(() => {});
  const applets = await run([join(root, "usr/bin/busybox"), "--list"]);
  const present = new Set([
    ...(await readdir(join(root, "usr/bin"))),
    ...(await readdir(join(root, "usr/sbin"))),
  ]);
  for (const name of applets.trim().split("\n"))
    if (!present.has(name)) await symlink("busybox", join(root, "usr/bin", name));
  await run(["ldconfig", "-r", root]);
  await addModules(join(root, "usr/lib/modules", kernel.version), kernel);
  await run(["depmod", "-b", root, kernel.version]);
  return root;
}

/** The accounts of base-passwd, and those that programs expect. */
async function addAccounts(root: string): Promise<void> {
  const master = (name: string) => Bun.file(join(root, "usr/share/base-passwd", `${name}.master`)).text();
  const passwd = (await master("passwd")).replace(/^root:[^:]*:(.*:)[^:]*$/m, "root:x:$1/bin/bash");
  const daemons = [
    "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin",
    "dhcpcd:x:101:65534::/run:/usr/sbin/nologin",
  ];
  await Bun.write(join(root, "etc/passwd"), `${passwd.trimEnd()}\n${daemons.join("\n")}\n`);
  await Bun.write(join(root, "etc/group"), await master("group"));
  await Bun.write(join(root, "etc/shadow"), "root:*:20000:0:99999:7:::\n");
  await Bun.write(join(root, "etc/hosts"), "127.0.0.1 localhost rescue\n");
  await chmod(join(root, "etc/shadow"), 0o600);
}

/** Files of modules and their dependencies, in load order. */
async function moduleFiles({ top, version }: Kernel, names: readonly string[]): Promise<string[]> {
  const shown = await run(["modprobe", "-d", top, "-S", version, "-a", "--show-depends", ...names]);
  return [...new Set([...shown.matchAll(/^insmod (\S+\.ko\S*)/gm)].map((match) => match[1]!))];
}

async function addModules(to: string, kernel: Kernel): Promise<void> {
  const from = join(kernel.top, "lib/modules", kernel.version);
  for (const file of await moduleFiles(kernel, MODULES)) {
    const place = join(to, file.slice(from.length));
    await mkdir(dirname(place), { recursive: true });
    await cp(file, place);
  }
  for (const name of ["modules.builtin", "modules.builtin.modinfo", "modules.order"])
    await cp(join(from, name), join(to, name));
}

async function makeInitramfs(image: string, root: string, kernel: Kernel): Promise<void> {
  for (const dir of ["bin", "below", "cd", "dev", "modules", "over", "proc", "root", "sys"])
    await mkdir(join(root, dir), { recursive: true });
  await cp((await run(["which", "busybox"])).trim(), join(root, "bin/busybox"), { dereference: true });
  await cp(join(sources, "stage1.sh"), join(root, "init"));
  await chmod(join(root, "init"), 0o755);
  const files = await moduleFiles(kernel, EARLY_MODULES);
  for (const file of files) await cp(file, join(root, "modules", basename(file)));
  await Bun.write(join(root, "modules/order"), files.map((file) => `${basename(file)}\n`).join(""));
  const names = [".", ...(await readdir(root, { recursive: true })).toSorted()];
  const options = ["-o", "-H", "newc", "-R", "0:0", "--quiet", "-0", "-O", `${image}.cpio`];
  await run(["cpio", ...options], { cwd: root, input: names.join("\0") });
  await run(["gzip", "-n", "-6", "-c", `${image}.cpio`], { output: image });
  await rm(`${image}.cpio`);
}

async function makeIso(iso: string, tree: string, temporary: string): Promise<void> {
  const filled = async (name: string) =>
    (await Bun.file(join(sources, name)).text()).replaceAll("@ARGUMENTS@", ARGUMENTS);
  const texts = {
    ".disk/arch": "x86_64\n",
    ".disk/date": "20250101\n",
    // Without the word "regular", which has a meaning for alt2deploy.
    ".disk/info": "Stand-in for ALT Rescue, of Debian packages, x86_64 build\n",
    "boot/grub/grub.cfg": await filled("grub.cfg"),
    "syslinux/isolinux.cfg": await filled("isolinux.cfg"),
    "EFI/BOOT/grub.cfg": "configfile /boot/grub/grub.cfg\n",
  };
  for (const [name, text] of Object.entries(texts)) await Bun.write(join(tree, name), text);
  await cp("/usr/lib/ISOLINUX/isolinux.bin", join(tree, "syslinux/isolinux.bin"));
  await cp("/usr/lib/syslinux/modules/bios/ldlinux.c32", join(tree, "syslinux/ldlinux.c32"));

  const program = join(tree, "EFI/BOOT/BOOTX64.EFI");
  const modules = "configfile echo iso9660 keystatus linux minicmd normal search search_fs_file test".split(
    " ",
  );
  const start = ["-p", "/boot/grub", "-c", join(sources, "grub-start.cfg")];
  await run(["grub-mkimage", "-O", "x86_64-efi", "-o", program, ...start, ...modules]);
  const image = join(tree, "EFI/.efiboot.img");
  await run(["mformat", "-i", image, "-C", "-f", "2880", "::"]);
  await run(["mmd", "-i", image, "::/EFI", "::/EFI/BOOT"]);
  await run(["mcopy", "-i", image, program, "::/EFI/BOOT/BOOTX64.EFI"]);

  const bios = ["-b", "syslinux/isolinux.bin", "-c", "syslinux/boot.cat", "-no-emul-boot"];
  const efi = ["-eltorito-alt-boot", "-e", "EFI/.efiboot.img", "-no-emul-boot", "-isohybrid-gpt-basdat"];
  const options = ["-quiet", "-r", "-J", "-l", "-V", "RESCUE_STANDIN", "-o", iso];
  const tables = ["-boot-load-size", "4", "-boot-info-table"];
  await run(["xorriso", "-as", "mkisofs", ...options, ...bios, ...tables, ...efi, tree], { cwd: temporary });
}

interface RunOptions {
  cwd?: string;
  input?: string;
  /** File for its output. */
  output?: string;
}

/** Runs a program and returns its output; throws with all of it after a failure. */
async function run(argv: string[], { cwd, input = "", output }: RunOptions = {}): Promise<string> {
  const path = `${process.env["PATH"] ?? "/usr/bin:/bin"}:/usr/sbin:/sbin`;
  const child = Bun.spawn(argv, {
    ...(cwd === undefined ? {} : { cwd }),
    env: { ...process.env, LC_ALL: "C", MTOOLS_SKIP_CHECK: "1", PATH: path },
    stdin: Buffer.from(input),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [printed, errors, status] = await Promise.all([
    output === undefined ? child.stdout.text() : save(child.stdout, output),
    child.stderr.text(),
    child.exited,
  ]);
  if (status !== 0) throw new Error(`${argv.join(" ")}: exit ${status}\n${errors}${printed}`);
  return printed;
}

async function save(stream: ReadableStream<Uint8Array>, path: string): Promise<string> {
  await Bun.write(path, new Response(stream));
  return "";
}

if (import.meta.main) console.log(await buildStandinIso(process.argv[2] ?? ".cache/standin"));
