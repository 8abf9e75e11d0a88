/**
 * Small Linux guests of other architectures, made of Debian's packages: a disk and a CD that their usual firmware
 * boots, by GRUB. Each prints `LINUX UP machine` (uname -m) on its serial console, and powers off.
 */
import { createHash } from "node:crypto";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from "node:fs";
import { join } from "node:path";

export interface ForeignGuest {
  /** Raw; copy it, do not use it. */
  disk: string;
  cd: string;
}

interface Recipe {
  debian: string;
  /** The oldest release with this architecture. */
  suite: string;
  kernel: string;
  console: string;
  grub: { package: string; platform: string };
  /** The default path of UEFI boot programs; others: Open Firmware. */
  efi: string | undefined;
}

const efi = (name: string, platform: string, file: string): Pick<Recipe, "grub" | "efi"> => ({
  grub: { package: `grub-efi-${name}-bin`, platform: `${platform}-efi` },
  efi: file,
});

const RECIPES = {
  aarch64: {
    debian: "arm64",
    suite: "bookworm",
    kernel: "linux-image-arm64",
    console: "ttyAMA0",
    ...efi("arm64", "arm64", "BOOTAA64.EFI"),
  },
  armhf: {
    debian: "armhf",
    suite: "bookworm",
    kernel: "linux-image-armmp",
    console: "ttyAMA0",
    ...efi("arm", "arm", "BOOTARM.EFI"),
  },
  i386: {
    debian: "i386",
    suite: "bookworm",
    kernel: "linux-image-686",
    console: "ttyS0",
    ...efi("ia32", "i386", "BOOTIA32.EFI"),
  },
  riscv64: {
    debian: "riscv64",
    suite: "trixie",
    kernel: "linux-image-riscv64",
    console: "ttyS0",
    ...efi("riscv64", "riscv64", "BOOTRISCV64.EFI"),
  },
  ppc64le: {
    debian: "ppc64el",
    suite: "bookworm",
    kernel: "linux-image-powerpc64le",
    console: "hvc0",
    grub: { package: "grub-ieee1275-bin", platform: "powerpc-ieee1275" },
    efi: undefined,
  },
} as const satisfies Record<string, Recipe>;

export type ForeignArch = keyof typeof RECIPES;
export const FOREIGN_ARCHES = Object.keys(RECIPES) as ForeignArch[];

/** 512-byte sectors; GRUB as a program of Open Firmware is in a partition of its own in front. */
const FIRST_SECTOR = 2048;
const PREP_SECTORS = 4096;

const INIT = `#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
exec >/dev/console 2>&1
echo "LINUX UP $(/bin/busybox uname -m)"
/bin/busybox poweroff -f
`;

/** The file that Open Firmware loads from a CD (CHRP). */
const BOOTINFO = `<chrp-boot>
<description>test</description>
<os-name>test</os-name>
<boot-script>boot &device;:\\boot\\core.elf</boot-script>
</chrp-boot>
`;

/** Builds those missing from the cache: 10 s each, and a download of some 80 MB. */
export async function buildForeign(cacheDir: string, arch: ForeignArch): Promise<ForeignGuest> {
  const recipe: Recipe = RECIPES[arch];
  const hash = createHash("sha256")
    .update(readFileSync(import.meta.path))
    .digest("hex")
    .slice(0, 16);
  const final = join(cacheDir, `foreign-${arch}-${hash}`);
  if (!existsSync(final)) {
    mkdirSync(cacheDir, { recursive: true });
    const scratch = join(cacheDir, `building-${arch}-${process.pid}`);
    rmSync(scratch, { recursive: true, force: true });
    mkdirSync(scratch);
    try {
      await build(recipe, scratch);
      renameSync(join(scratch, "out"), final);
    } finally {
      rmSync(scratch, { recursive: true, force: true });
    }
  }
  return { disk: join(final, "disk.img"), cd: join(final, "cd.iso") };
}

/** Unpacks packages of a Debian of another architecture and their dependencies; runs no program of them. */
export async function unpackDebian(
  { debian, suite }: Pick<Recipe, "debian" | "suite">,
  packages: readonly string[],
  root: string,
): Promise<void> {
  const mirror = await debianMirror();
  await run([
    "mmdebstrap",
    "--variant=extract",
    `--arch=${debian}`,
    `--include=${packages.join(",")}`,
    suite,
    root,
    ...(mirror ? [mirror] : []),
  ]);
}

/** This host's mirror; undefined: mmdebstrap's default, with its additional suites. */
async function debianMirror(): Promise<string | undefined> {
  const all = await run([
    "apt-get",
    "indextargets",
    "--format",
    "$(REPO_URI) $(COMPONENT) $(CODENAME)",
    "Created-By: Packages",
  ]);
  return /^(\S+debian\/?) main [a-z]+$/m.exec(all)?.[1];
}

export const debianOf = (arch: ForeignArch): Pick<Recipe, "debian" | "suite" | "kernel"> => RECIPES[arch];

async function build(recipe: Recipe, scratch: string): Promise<void> {
  const root = join(scratch, "root");
  const out = join(scratch, "out");
  mkdirSync(out);
  await unpackDebian(recipe, [recipe.kernel, "busybox-static", recipe.grub.package], root);
  const tree = join(scratch, "tree");
  mkdirSync(join(tree, "boot"), { recursive: true });
  const kernel = readdirSync(join(root, "boot")).find((name) => name.startsWith("vmlinu"))!;
  cpSync(join(root, "boot", kernel), join(tree, "vmlinuz"));
  await makeInitrd(root, join(scratch, "initrd"), join(tree, "initrd"));
  const config = join(scratch, "grub.cfg");
  await Bun.write(
    config,
    [
      "search --file /vmlinuz --set=root",
      `linux /vmlinuz console=${recipe.console} quiet panic=-1`,
      "initrd /initrd",
      "boot",
      "",
    ].join("\n"),
  );
  const core = join(scratch, "core");
  const { platform } = recipe.grub;
  const modules = ["part_msdos", "fat", "iso9660", "linux", "search", "search_fs_file"];
  const from = join(root, "usr/lib/grub", platform);
  await run(["grub-mkimage", "-O", platform, "-d", from, "-p", "/", "-c", config, "-o", core, ...modules]);
  await makeDisk(recipe, tree, core, join(out, "disk.img"));
  await makeCd(recipe, tree, core, join(out, "cd.iso"));
}

async function makeInitrd(root: string, tree: string, image: string): Promise<void> {
  for (const directory of ["bin", "dev", "proc"]) mkdirSync(join(tree, directory), { recursive: true });
  const busybox = ["usr/bin/busybox", "bin/busybox"].map((path) => join(root, path)).find(existsSync)!;
  cpSync(busybox, join(tree, "bin/busybox"), { dereference: true });
  await Bun.write(join(tree, "init"), INIT);
  chmodSync(join(tree, "init"), 0o755);
  const names = [".", "bin", "bin/busybox", "dev", "init", "proc"].join("\n");
  await run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet", "-O", image], tree, names);
}

/** A FAT partition, from which GRUB loads the kernel, and UEFI loads GRUB. */
async function makeDisk({ efi: program }: Recipe, tree: string, core: string, disk: string): Promise<void> {
  const first = FIRST_SECTOR + (program ? 0 : PREP_SECTORS);
  const sectors = (128 << 20) / 512;
  await run(["truncate", "-s", String((first + sectors) * 512), disk]);
  const lines = program
    ? [`start=${first},type=ef`]
    : [`start=${FIRST_SECTOR},size=${PREP_SECTORS},type=41,bootable`, `start=${first},type=c`];
  await run(["sfdisk", "-q", disk], undefined, ["label: dos", ...lines, ""].join("\n"));
  if (!program)
    await run([
      "dd",
      `if=${core}`,
      `of=${disk}`,
      "bs=512",
      `seek=${FIRST_SECTOR}`,
      "conv=notrunc",
      "status=none",
    ]);
  const fat = `${disk}@@${first * 512}`;
  await run([
    "mformat",
    "-i",
    fat,
    "-F",
    "-T",
    String(sectors),
    "-h",
    "255",
    "-s",
    "63",
    "-H",
    String(first),
    "::",
  ]);
  await run(["mcopy", "-i", fat, join(tree, "vmlinuz"), join(tree, "initrd"), "::/"]);
  if (program) await addProgram(fat, program, core);
}

async function addProgram(fat: string, program: string, core: string): Promise<void> {
  await run(["mmd", "-i", fat, "::/EFI", "::/EFI/BOOT"]);
  await run(["mcopy", "-i", fat, core, `::/EFI/BOOT/${program}`]);
}

async function makeCd({ efi: program }: Recipe, tree: string, core: string, cd: string): Promise<void> {
  const mkisofs = ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", cd];
  if (program) {
    const image = `${core}.img`;
    await run(["mformat", "-i", image, "-C", "-f", "2880", "::"]);
    await addProgram(image, program, core);
    const boot = ["-append_partition", "2", "0xef", image, "-e", "--interval:appended_partition_2:all::"];
    await run([...mkisofs, ...boot, "-no-emul-boot", tree]);
    return;
  }
  mkdirSync(join(tree, "ppc"));
  await Bun.write(join(tree, "ppc/bootinfo.txt"), BOOTINFO);
  cpSync(core, join(tree, "boot/core.elf"));
  await run([...mkisofs, "-hfsplus", tree]);
}

/** Throws with all output of a failed program. */
async function run(argv: string[], cwd?: string, input = ""): Promise<string> {
  const child = Bun.spawn(argv, {
    ...(cwd && { cwd }),
    stdin: Buffer.from(input),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [status, out, err] = await Promise.all([
    child.exited,
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  if (status !== 0) throw new Error(`${argv.join(" ")} ended with ${status}:\n${out}${err}`);
  return out;
}
