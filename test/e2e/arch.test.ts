import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "bun:test";
import { buildForeign, type ForeignArch } from "../guests/foreign.ts";
import { checkout, guests, Sandbox } from "./harness.ts";

test.each(["x86_64", "i386", "i686"])(
  "a guest of %s boots from the CD and then from its disk",
  async (arch) => {
    using box = new Sandbox();
    const { installerIso } = await guests();
    const options = [`--arch=${arch}`, "--port=", "--memory=128M", "--disks=VIRT=64M"];
    await box.ok([...options, "@create", "G", installerIso, "@run"]);
    expect(box.console()).toBe("BOOTED FROM CD\nINSTALLED\n");
    // What was chosen at the creation holds without the option.
    await box.ok(["run"]);
    expect(box.console()).toBe("BOOTED FROM DISK\nRUN 1\n");
    const program = arch === "x86_64" ? "qemu-system-x86_64" : "qemu-system-i386";
    expect(readFileSync(join(box.work, "run-vm.sh"), "utf8")).toContain(`exec ${program} `);
  },
);

/** What each says of itself, and whether it has no firmware but the one that is taken without a word. */
const FOREIGN: [arch: ForeignArch, machine: string, options: string[]][] = [
  ["aarch64", "aarch64", []],
  ["armhf", "armv7l", []],
  ["i386", "i686", ["--uefi"]],
  ["riscv64", "riscv64", []],
  ["ppc64le", "ppc64le", []],
];

test.each(FOREIGN)("a Linux of %s boots from a disk and from a CD", async (arch, machine, more) => {
  const { disk, cd } = await buildForeign(join(checkout, ".cache/guests"), arch);
  const boot = async (what: readonly string[]): Promise<void> => {
    using box = new Sandbox();
    const options = [`--arch=${arch}`, "--port=", "--memory=512M", ...more];
    await box.ok([...options, "@create", "G", ...what, "@run"]);
    expect(box.console()).toContain(`LINUX UP ${machine}`);
  };
  await Promise.all([boot([`--from=${disk}`]), boot([cd])]);
});
