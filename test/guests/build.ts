/**
 * Small bootable guests for the tests, built from the sources beside this file.
 *
 *   const guests = await buildGuests(cacheDir); // 5 s and a download of 70 MB the first time, then nothing
 *
 * Every guest prints on COM1 (ttyS0) and, the BIOS ones, on the screen too. Lines end in "\n",
 * Linux's in "\r\n", GRUB's in "\n\r" after the output of OVMF itself.
 *
 * installer.iso  BIOS CD. `BOOTED FROM CD`; writes a boot sector and a zero counter to the first hard disk; `INSTALLED`;
 *                resets the machine. Without a disk: `NO DISK`, power-off.
 *                The disk then prints `BOOTED FROM DISK`, adds 1 to the little-endian 32-bit counter at byte 512 of the
 *                disk, prints `RUN n`, and powers off.
 * halt.iso       BIOS CD. `BOOTED FROM CD`, power-off.
 * hang.iso       BIOS CD. `HANGING`, then loops for ever; ignores the power button.
 * busy.img       BIOS boot sector, 512 bytes, to be written to the first of two disks. `BUSY`, then a `.` for each 8 records that
 *                it has written to both (see busy.asm), about 36 a second; the power button does nothing.
 * efi.iso        UEFI CD. `BOOTED FROM CD`, reset (it cannot install anything).
 * efi-disk.img   UEFI disk, raw, 16 MiB, MBR with an EFI system partition. `BOOTED FROM DISK`, power-off. Copy it, do not use it.
 * linux.iso      BIOS and UEFI CD: Debian's kernel and busybox. Mounts the 9p share `in` read-only on /in and runs
 *                /in/guest.sh with busybox sh on ttyS0; without it prints `LINUX UP` and `NAME [SERIAL] BYTES` for each block
 *                device; then powers off. The power button prints `POWER BUTTON` and powers off at any time.
 *                Loaded: drivers of AHCI, IDE, NVMe, virtio (disk, SCSI, net, rng, 9p, serial), e1000 and the panic device, if present;
 *                ext4 (ext2 too), vfat, isofs, 9p and efivarfs come with `mount -t`. Network cards are left down.
 * kernel, initrd The same Linux for `-kernel`, `-initrd` and `-append "${guests.append}"`.
 *
 * Power-off and reset are real: QMP's SHUTDOWN has the reason guest-shutdown, or guest-reset with -no-reboot.
 * Needs the packages in GUEST_PACKAGES and, once, the package lists and the network for the kernel (`apt-get download`).
 */
import { createHash } from "node:crypto";
import {
  chmod,
  cp,
  exists,
  mkdir,
  mkdtemp,
  open,
  readdir,
  rename,
  rm,
  stat,
  symlink,
} from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";

/** The Debian packages that the build needs. */
export const GUEST_PACKAGES: string[] = [
  "busybox-static",
  "cpio",
  "grub-common",
  "grub-efi-amd64-bin",
  "isolinux",
  "kmod",
  "mtools",
  "nasm",
  "syslinux-common",
  "xorriso",
];

/** Absolute paths of the guests; shared, must not be written to. */
export interface Guests {
  installerIso: string;
  haltIso: string;
  hangIso: string;
  busyDisk: string;
  efiIso: string;
  efiDisk: string;
  linuxIso: string;
  kernel: string;
  initrd: string;
  /** The kernel command line of linux.iso. */
  append: string;
}

const APPEND = "console=ttyS0 quiet panic=-1 mitigations=off scsi_mod.scan=sync";

const MODULES = (
  "button evdev virtio_pci ahci ata_piix sd_mod sr_mod nvme e1000 " +
  "xhci_pci usb_storage pvpanic_mmio virtio_blk virtio_scsi virtio_net virtio_rng virtio_console 9pnet_virtio 9p " +
  "ext4 crc32c_generic vfat nls_ascii nls_cp437 isofs efivarfs"
).split(" ");

const sources = import.meta.dir;

export async function buildGuests(cacheDir: string): Promise<Guests> {
  const cache = resolve(cacheDir);
  const final = join(cache, `guests-${await sourcesHash()}`);
  if (!(await exists(final))) {
    await mkdir(cache, { recursive: true });
    await sweep(cache);
    const temporary = await mkdtemp(join(cache, "building-"));
    try {
      const out = join(temporary, "out");
      await mkdir(out);
      await buildBios(out, temporary);
      await buildEfi(out, temporary);
      await buildLinux(out, temporary, cache);
      await rename(out, final).catch(async (error: unknown) => {
        // A concurrent caller has finished first: its result is used.
        if (!(await exists(final))) throw error;
      });
    } finally {
      await rm(temporary, { recursive: true, force: true });
    }
  }
  return {
    installerIso: join(final, "installer.iso"),
    haltIso: join(final, "halt.iso"),
    hangIso: join(final, "hang.iso"),
    busyDisk: join(final, "busy.img"),
    efiIso: join(final, "efi.iso"),
    efiDisk: join(final, "efi-disk.img"),
    linuxIso: join(final, "linux.iso"),
    kernel: join(final, "vmlinuz"),
    initrd: join(final, "initrd.img"),
    append: APPEND,
  };
}

/** Removes the rest of a killed build. */
async function sweep(cache: string): Promise<void> {
  for (const name of (await readdir(cache)).filter((entry) => entry.startsWith("building-"))) {
    const made = await stat(join(cache, name)).catch(() => undefined);
    if (made && Date.now() - made.mtimeMs > 600_000) {
      await rm(join(cache, name), { recursive: true, force: true });
    }
  }
}

async function sourcesHash(): Promise<string> {
  const hash = createHash("sha256");
  const names = (await readdir(sources)).filter((name) => /^build\.ts$|\.(asm|cfg|sh)$/.test(name));
  for (const name of names.toSorted()) {
    const text = await Bun.file(join(sources, name)).text();
    hash.update(`${name} ${text.length}\n${text}`);
  }
  return hash.digest("hex").slice(0, 16);
}

async function buildBios(out: string, temporary: string): Promise<void> {
  await assemble("disk.asm", join(temporary, "disk.bin"), []);
  await assemble("busy.asm", join(out, "busy.img"), []);
  const kinds = { installer: "INSTALL", halt: "HALT", hang: "HANG" };
  for (const [name, define] of Object.entries(kinds)) {
    const tree = join(temporary, name);
    await mkdir(tree);
    await assemble("cd.asm", join(tree, "boot.bin"), [`-D${define}`, `-I${temporary}/`]);
    const boot = ["-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "4"];
    await makeIso(join(out, `${name}.iso`), tree, boot);
  }
}

async function assemble(source: string, output: string, options: string[]): Promise<void> {
  await run(["nasm", "-f", "bin", `-I${sources}/`, ...options, "-o", output, join(sources, source)]);
}

async function buildEfi(out: string, temporary: string): Promise<void> {
  const tree = join(temporary, "efi");
  await mkdir(tree);
  await makeEfiFloppy(join(tree, "efi.img"), "efi-cd.cfg", ["reboot"]);
  await makeIso(join(out, "efi.iso"), tree, ["-e", "efi.img", "-no-emul-boot"]);

  const disk = join(out, "efi-disk.img");
  const first = 2048;
  const sectors = (16 << 20) / 512 - first;
  const mbr = Buffer.alloc(512);
  mbr.set([0, 0xfe, 0xff, 0xff, 0xef, 0xfe, 0xff, 0xff], 446); // one entry of type EF, addressed by LBA
  mbr.writeUInt32LE(first, 454);
  mbr.writeUInt32LE(sectors, 458);
  mbr.writeUInt16LE(0xaa55, 510);
  const file = await open(disk, "w");
  await file.write(mbr);
  await file.truncate((first + sectors) * 512);
  await file.close();
  const partition = `${disk}@@${first * 512}`;
  await run([
    "mformat",
    "-i",
    partition,
    "-T",
    String(sectors),
    "-h",
    "16",
    "-s",
    "63",
    "-H",
    String(first),
    "::",
  ]);
  await addGrub(partition, `${disk}.efi`, "efi-disk.cfg", ["halt"]);
}

async function makeEfiFloppy(image: string, config: string, modules: string[]): Promise<void> {
  await run(["mformat", "-i", image, "-C", "-f", "2880", "::"]);
  await addGrub(image, `${image}.efi`, config, modules);
}

/** Puts a GRUB that only runs the given commands on a FAT image, as the default boot program. */
async function addGrub(fat: string, scratch: string, config: string, modules: string[]): Promise<void> {
  const all = ["serial", "terminal", "echo", ...modules];
  await run([
    "grub-mkimage",
    "-O",
    "x86_64-efi",
    "-p",
    "/",
    "-c",
    resolve(sources, config),
    "-o",
    scratch,
    ...all,
  ]);
  await run(["mmd", "-i", fat, "::/EFI", "::/EFI/BOOT"]);
  await run(["mcopy", "-i", fat, scratch, "::/EFI/BOOT/BOOTX64.EFI"]);
  await rm(scratch);
}

async function buildLinux(out: string, temporary: string, cache: string): Promise<void> {
  const kernel = join(temporary, "kernel");
  await run(["dpkg-deb", "-x", await kernelPackage(cache, temporary), kernel]);
  const version = (await readdir(join(kernel, "lib/modules")))[0] ?? "";
  await cp(join(kernel, "boot", `vmlinuz-${version}`), join(out, "vmlinuz"));
  await makeInitrd(join(out, "initrd.img"), join(temporary, "initrd"), kernel, version);

  const tree = join(temporary, "linux");
  await mkdir(tree);
  await cp(join(out, "vmlinuz"), join(tree, "vmlinuz"));
  await cp(join(out, "initrd.img"), join(tree, "initrd.img"));
  await cp("/usr/lib/ISOLINUX/isolinux.bin", join(tree, "isolinux.bin"));
  await cp("/usr/lib/syslinux/modules/bios/ldlinux.c32", join(tree, "ldlinux.c32"));
  const isolinux = [
    "default linux",
    "label linux",
    "kernel /vmlinuz",
    `append initrd=/initrd.img ${APPEND}`,
    "",
  ];
  await Bun.write(join(tree, "isolinux.cfg"), isolinux.join("\n"));
  const grub = [
    "search --no-floppy --file --set=root /vmlinuz",
    `linux /vmlinuz ${APPEND}`,
    "initrd /initrd.img",
  ];
  const config = join(temporary, "linux.cfg");
  await Bun.write(config, [...grub, "boot", ""].join("\n"));
  const modules = ["iso9660", "search", "search_fs_file", "linux", "boot"];
  await makeEfiFloppy(join(tree, "efi.img"), config, modules);
  const bios = ["-b", "isolinux.bin", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"];
  const efi = ["-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot"];
  await makeIso(join(out, "linux.iso"), tree, [...bios, ...efi]);
}

const isKernel = (name: string): boolean => /^linux-image-.*\.deb$/.test(name);

/** Debian's current kernel package, downloaded once into the cache. */
async function kernelPackage(cache: string, temporary: string): Promise<string> {
  const cached = (await readdir(cache)).find(isKernel);
  if (cached) return join(cache, cached);
  const depends = await run(["apt-cache", "depends", "linux-image-amd64"]);
  const name = /Depends: (linux-image-\S+-amd64)$/m.exec(depends)?.[1];
  if (!name) throw new Error(`apt-cache names no kernel for linux-image-amd64:\n${depends}`);
  const download = join(temporary, "deb");
  await mkdir(download);
  await run(["apt-get", "download", "-o", "APT::Sandbox::User=root", name], download);
  const deb = (await readdir(download)).find(isKernel);
  if (!deb) throw new Error(`apt-get download brought no ${name}`);
  await rename(join(download, deb), join(cache, deb));
  return join(cache, deb);
}

async function makeInitrd(image: string, root: string, kernel: string, version: string): Promise<void> {
  for (const dir of ["bin", "dev", "etc/acpi/PWRF", "in", "lib", "mnt", "proc", "sys", "tmp"]) {
    await mkdir(join(root, dir), { recursive: true });
  }
  await cp((await run(["which", "busybox"])).trim(), join(root, "bin/busybox"), { dereference: true });
  await symlink("bin", join(root, "sbin")); // the kernel calls /sbin/modprobe
  for (const [from, to] of [
    ["linux-init.sh", "init"],
    ["linux-power.sh", "etc/acpi/PWRF/00000080"],
  ] as const) {
    await cp(join(sources, from), join(root, to));
    await chmod(join(root, to), 0o755);
  }

  await run(["depmod", "-b", kernel, version]);
  const shown = await run(["modprobe", "-d", kernel, "-S", version, "-a", "--show-depends", ...MODULES]);
  const modules = new Set([...shown.matchAll(/^insmod (\S+\.ko)/gm)].map((match) => match[1] ?? ""));
  for (const module of modules) {
    const to = join(root, "lib/modules", version, "kernel", basename(module));
    await mkdir(dirname(to), { recursive: true });
    await Bun.write(to, withoutSignature(await Bun.file(module).bytes()));
  }
  const lists = join(root, "lib/modules", version);
  for (const name of ["modules.builtin", "modules.order"]) {
    await cp(join(kernel, "lib/modules", version, name), join(lists, name));
  }
  await run(["depmod", "-b", root, version]);
  const wanted = new Set(["kernel", "modules.dep", "modules.alias", "modules.softdep"]);
  for (const name of await readdir(lists)) if (!wanted.has(name)) await rm(join(lists, name));

  const names = ["."];
  for (const name of (await readdir(root, { recursive: true })).toSorted()) names.push(name);
  const options = ["-o", "-H", "newc", "-R", "0:0", "--reproducible", "--quiet", "-0", "-O", image];
  await run(["cpio", ...options], root, names.join("\0"));
}

/** Verifying signatures takes a good part of a second under TCG. */
function withoutSignature(module: Uint8Array): Uint8Array {
  const bytes = Buffer.from(module);
  const magic = "~Module signature appended~\n";
  const end = bytes.length - magic.length;
  if (bytes.subarray(end).toString("latin1") !== magic) return bytes;
  return bytes.subarray(0, end - 12 - bytes.readUInt32BE(end - 4)); // signature, then 12 bytes that end in its length
}

async function makeIso(image: string, tree: string, boot: string[]): Promise<void> {
  const volume = basename(image, ".iso").toUpperCase();
  await run([
    "xorriso",
    "-as",
    "mkisofs",
    "-quiet",
    "-r",
    "-V",
    volume,
    ...boot,
    "-c",
    "boot.cat",
    "-o",
    image,
    tree,
  ]);
}

/** Runs a program and returns its output; throws with all of it after a failure. */
async function run(argv: string[], cwd?: string, input = ""): Promise<string> {
  const path = `${process.env["PATH"] ?? "/usr/bin:/bin"}:/usr/sbin:/sbin`;
  const child = Bun.spawn(argv, {
    ...(cwd === undefined ? {} : { cwd }),
    env: { ...process.env, LC_ALL: "C", MTOOLS_SKIP_CHECK: "1", PATH: path },
    stdin: Buffer.from(input),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [output, errors, status] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  if (status !== 0) throw new Error(`${argv.join(" ")}: exit ${status}\n${errors}${output}`);
  return output;
}

if (import.meta.main) console.log(await buildGuests(process.argv[2] ?? "guests"));
