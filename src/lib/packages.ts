/** Families of distributions, by the names of their packages. */
export const FAMILIES = ["alt", "debian", "ubuntu", "fedora", "arch"] as const;
export type Family = (typeof FAMILIES)[number];

/** Package names, several with spaces between; undefined: the distribution has none. */
export type Packages = Record<Family, string | undefined>;

const TITLES: Record<Family, string> = {
  alt: "ALT",
  debian: "Debian",
  ubuntu: "Ubuntu",
  fedora: "Fedora",
  arch: "Arch",
};

const everywhere = (name: string): Packages => named(name, name, name, name);

/** Ubuntu's are Debian's unless it has its own. */
function named(
  debian: string | undefined,
  alt: string | undefined,
  fedora: string | undefined,
  arch: string | undefined,
  ubuntu = debian,
): Packages {
  return { alt, debian, ubuntu, fedora, arch };
}

const QEMU_X86 = everywhere("qemu-system-x86");

/** The packages that hold what the program uses. scripts/lib/setup.sh has the developers' needs. */
export const PACKAGES = {
  "qemu-system-x86_64": QEMU_X86,
  "qemu-system-i386": QEMU_X86,
  "qemu-system-aarch64": named(
    "qemu-system-arm",
    "qemu-system-aarch64",
    "qemu-system-aarch64",
    "qemu-system-aarch64",
  ),
  "qemu-system-arm": everywhere("qemu-system-arm"),
  // Debian's has moved from one package to another; this one needs whichever it is.
  "qemu-system-riscv64": named("qemu-system", "qemu-system-riscv", "qemu-system-riscv", "qemu-system-riscv"),
  "qemu-system-ppc64": everywhere("qemu-system-ppc"),
  // Newer releases have it apart.
  spice: named(
    "qemu-system-modules-spice",
    "qemu-system-x86",
    "qemu-system-x86",
    "qemu-ui-spice-core qemu-chardev-spice",
  ),
  "qemu-img": named("qemu-utils", "qemu-img", "qemu-img", "qemu-img"),
  "uefi-x86_64": named("ovmf", "edk2-ovmf", "edk2-ovmf", "edk2-ovmf"),
  "uefi-i386": named("ovmf-ia32", "edk2-ovmf-ia32", "edk2-ovmf-ia32", "edk2-ovmf"),
  "uefi-aarch64": named("qemu-efi-aarch64", "edk2-aarch64", "edk2-aarch64", "edk2-aarch64"),
  "uefi-armhf": named("qemu-efi-arm", undefined, "edk2-arm", "edk2-arm"),
  "uefi-riscv64": named("qemu-efi-riscv64", undefined, "edk2-riscv64", undefined),
  "u-boot": named("u-boot-qemu", undefined, "uboot-images-riscv64", undefined),
  netboot: named("ipxe-qemu", "ipxe-roms-qemu", "ipxe-roms-qemu", "qemu-common"),
  pigz: everywhere("pigz"),
  coreutils: everywhere("coreutils"),
  setpriv: everywhere("util-linux"),
  bwrap: everywhere("bubblewrap"),
  bash: everywhere("bash"),
  iproute2: named("iproute2", "iproute2", "iproute", "iproute2"),
  dnsmasq: named("dnsmasq-base", "dnsmasq", "dnsmasq", "dnsmasq"),
  nftables: everywhere("nftables"),
  passt: everywhere("passt"),
  "bridge-helper": named("qemu-system-common", "qemu-common", "qemu-common", "qemu-common"),
  ssh: named("openssh-client", "openssh-clients", "openssh-clients", "openssh"),
  xorriso: named("xorriso", "xorriso", "xorriso", "libisoburn"),
  alt2deploy: named(undefined, "alt2deploy", undefined, undefined),
  busybox: named("busybox-static", "busybox", "busybox", "busybox"),
  kmod: everywhere("kmod"),
  // Compressions of kernel modules.
  gzip: everywhere("gzip"),
  xz: named("xz-utils", "xz", "xz", "xz"),
  zstd: everywhere("zstd"),
  lz4: everywhere("lz4"),
  kernel: named("linux-image-amd64", "kernel-image-std-def", "kernel", "linux", "linux-image-generic"),
  "kernel-aarch64": named(
    "linux-image-arm64",
    "kernel-image-std-def",
    "kernel",
    "linux",
    "linux-image-generic",
  ),
  "kernel-i386": named("linux-image-686-pae", "kernel-image-std-def", "kernel", "linux"),
  "kernel-armhf": named("linux-image-armmp", undefined, "kernel", undefined),
  "kernel-riscv64": named("linux-image-riscv64", "kernel-image-un-def", "kernel", undefined),
  "kernel-ppc64le": named("linux-image-powerpc64le", undefined, "kernel", undefined),
  swtpm: everywhere("swtpm"),
  restic: everywhere("restic"),
  fuse: everywhere("fuse3"),
  sshfs: named("sshfs", "fuse-sshfs", "fuse-sshfs", "sshfs"),
  "remote-viewer": everywhere("virt-viewer"),
} as const satisfies Record<string, Packages>;

/** A kernel to make a rescue of, for a host (`uname -m`): some distributions name it after the architecture. */
export function kernelPackages(hostArch: string): Packages {
  const thing = `kernel-${hostArch}`;
  return PACKAGES[isThing(thing) ? thing : "kernel"];
}

export type Thing = keyof typeof PACKAGES;
export const isThing = (name: string): name is Thing => Object.hasOwn(PACKAGES, name);

/** ID and ID_LIKE of os-release(5), which go from the special to the general. */
const WORDS: Record<string, Family> = {
  altlinux: "alt",
  debian: "debian",
  ubuntu: "ubuntu",
  fedora: "fedora",
  rhel: "fedora",
  centos: "fedora",
  arch: "arch",
};

/** Whose package names a host uses; undefined for one we know none of. */
export function familyOf(ids: readonly string[]): Family | undefined {
  const known = ids.flatMap((id) => (Object.hasOwn(WORDS, id) ? [WORDS[id]!] : []));
  // ALT's ID_LIKE may name others.
  return known.includes("alt") ? "alt" : known[0];
}

/** Packages that older releases lack: the first that has it, and what held the same before (packages.debian.org). */
const NEWER: Readonly<Record<string, { since: Partial<Record<Family, number>>; before?: string }>> = {
  "qemu-system-modules-spice": { since: { debian: 13, ubuntu: 24.04 }, before: "qemu-system-common" },
  "qemu-efi-riscv64": { since: { debian: 13, ubuntu: 24.04 } },
};

/** The name of a package in a release; undefined where that has none. */
function nameIn(name: string, family: Family, release: number): string | undefined {
  const { since, before } = NEWER[name] ?? {};
  return release < (since?.[family] ?? 0) ? before : name;
}

/**
 * What to install, for people: on a known host its own package, else all of them by name.
 * @param release VERSION_ID of os-release(5), where it is a number
 * @returns undefined where that distribution, or this release of it, has no package of it
 */
export function installHint(packages: Packages, family?: Family, release = Infinity): string | undefined {
  if (family !== undefined) {
    const own = packages[family]?.split(" ").map((name) => nameIn(name, family, release));
    return own?.every((name) => name !== undefined) ? `install ${own.join(" ")}` : undefined;
  }
  const names = [...new Set(FAMILIES.flatMap((one) => packages[one] ?? []))];
  if (names.length === 1 && FAMILIES.every((one) => packages[one])) return `install ${names[0]}`;
  const parts = names.map((name) => {
    const titles = FAMILIES.filter((one) => packages[one] === name).map((one) => TITLES[one]);
    return `${name} (${titles.join(", ")})`;
  });
  return `install ${parts.join(" or ")}`;
}
