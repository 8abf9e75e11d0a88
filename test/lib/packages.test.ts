import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  FAMILIES,
  familyOf,
  installHint,
  PACKAGES,
  type Family,
  type Thing,
} from "../../src/lib/packages.ts";

const SETUP = readFileSync(join(import.meta.dir, "../../scripts/lib/setup.sh"), "utf8");

/** Columns of the table in setup.sh. */
const COLUMNS: Partial<Record<Family, number>> = { debian: 2, alt: 3, fedora: 4, arch: 6 };

/** Entries of both tables, by their name here and there. */
const SHARED: [Thing, string][] = [
  ["qemu-system-x86_64", "qemu-system-x86_64"],
  ["spice", "qemu_with_spice"],
  ["qemu-img", "qemu-img"],
  ["uefi-x86_64", "ovmf_firmware"],
  ["pigz", "pigz"],
  ["setpriv", "setpriv"],
  ["busybox", "busybox"],
  ["kmod", "kmod"],
  ["xz", "xz"],
  ["zstd", "zstd"],
  ["kernel", "rescue_kernel"],
  ["ssh", "ssh-keygen"],
  ["xorriso", "xorriso"],
];

describe("scripts/lib/setup.sh names the same packages", () => {
  test.each(SHARED)("%s: %s", (thing, inSetup) => {
    const row = SETUP.split("\n")
      .map((line) => line.trim().split(/\s+/))
      .find((columns) => columns[1] === inSetup && columns.length === 7)!;
    for (const [family, column] of Object.entries(COLUMNS) as [Family, number][])
      expect([family, PACKAGES[thing][family]]).toEqual([family, row[column]!.replaceAll(",", " ")]);
  });
});

test.each(Object.entries(PACKAGES))("%s has valid package names", (_thing, packages) => {
  for (const family of FAMILIES)
    for (const name of packages[family]?.split(" ") ?? []) expect(name).toMatch(/^[a-z0-9][a-z0-9+.-]+$/);
});

describe("a host's family", () => {
  test.each<[string, Family | undefined]>([
    ["debian", "debian"],
    ["ubuntu debian", "ubuntu"],
    ["linuxmint ubuntu debian", "ubuntu"],
    ["altlinux", "alt"],
    ["simply fedora altlinux", "alt"],
    ["fedora", "fedora"],
    ["almalinux rhel centos fedora", "fedora"],
    ["manjaro arch", "arch"],
    ["alpine", undefined],
    ["constructor", undefined],
    ["", undefined],
  ])("of %s is %s", (ids, family) => {
    expect(familyOf(ids.split(" "))).toBe(family);
  });
});

describe("what to install", () => {
  test.each<[Thing, Family | undefined, string | undefined]>([
    ["pigz", "alt", "install pigz"],
    ["pigz", undefined, "install pigz"],
    ["qemu-img", "debian", "install qemu-utils"],
    ["qemu-img", undefined, "install qemu-img (ALT, Fedora, Arch) or qemu-utils (Debian, Ubuntu)"],
    ["spice", "arch", "install qemu-ui-spice-core qemu-chardev-spice"],
    ["alt2deploy", "debian", undefined],
    ["alt2deploy", undefined, "install alt2deploy (ALT)"],
    ["kernel", "ubuntu", "install linux-image-generic"],
  ])("for %s on %s: %s", (thing, family, hint) => {
    expect(installHint(PACKAGES[thing], family)).toBe(hint);
  });

  test.each<[Thing, Family, string | undefined, release: number]>([
    ["uefi-riscv64", "debian", "install qemu-efi-riscv64", 13],
    ["uefi-riscv64", "debian", undefined, 12],
    ["uefi-riscv64", "ubuntu", undefined, 22.04],
    ["spice", "debian", "install qemu-system-modules-spice", 13],
    ["spice", "debian", "install qemu-system-common", 12],
    ["spice", "debian", "install qemu-system-modules-spice", 14],
    ["pigz", "debian", "install pigz", 12],
  ])("for %s on %s: %s (release %d)", (thing, family, hint, release) => {
    expect(installHint(PACKAGES[thing], family, release)).toBe(hint);
  });
});
