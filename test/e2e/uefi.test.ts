/** Guests that boot by UEFI. */
import { beforeAll, expect, test } from "bun:test";
import { existsSync, rmSync } from "node:fs";
import type { Guests } from "../guests/build.ts";
import { guests, type Sandbox } from "./harness.ts";
import { configure, mode, runNumber, sha256, smallSandbox, suite } from "./tools.ts";

let iso: Guests;

function uefiSandbox(): Sandbox {
  const box = smallSandbox();
  configure(box, "MEMORY=256M\nCORES=1\nPORT=\nUEFI=1\nDISKS=(AHCI=16M)\n");
  return box;
}

/** Puts the bootable UEFI disk in the place of the VM's own. */
async function installEfiDisk(box: Sandbox): Promise<void> {
  rmSync(box.path(".work/disk-0.img"));
  await Bun.$`qemu-img convert -f raw -O qcow2 ${iso.efiDisk} ${box.path(".work/disk-0.img")}`.quiet();
}

suite("UEFI", () => {
  beforeAll(async () => {
    iso = await guests();
  });

  test("the CD boots once, the disk afterwards; NVRAM is kept in the snapshot", async () => {
    using box = uefiSandbox();
    await box.ok(["@create", "E", iso.efiIso, "@run"]);
    expect(box.console()).toContain("BOOTED FROM CD");
    expect(box.read(".work/run-vm.sh")).toContain("-machine q35,");
    expect(mode(box.path(".work/efivars.bin"))).toBe("600");
    await installEfiDisk(box);
    await box.ok(["run"]);
    expect(box.console()).toContain("BOOTED FROM DISK");
    expect(box.console()).not.toContain("BOOTED FROM CD");
    const nvram = sha256(box.path(".work/efivars.bin"));
    await box.ok(["@backup", "@destroy", "@restore"]);
    expect(sha256(box.path(".work/efivars.bin"))).toBe(nvram);
    await box.ok(["run"]);
    expect(box.console()).toContain("BOOTED FROM DISK");
  });

  test.each(["AHCI", "NVME", "SCSI", "VIRT"])("%s: boots a disk attached with --image", async (bus) => {
    using box = uefiSandbox();
    await Bun.$`cp ${iso.efiDisk} ${box.path("efi disk,1.img")}`;
    await box.ok(["--disks=", "create", "E"]);
    await box.ok([`--image=${bus}=raw=efi disk,1.img`, "run"]);
    expect(box.console()).toContain("BOOTED FROM DISK");
  });

  test("a UEFI VM boots by BIOS with --no-uefi, and the other way round", async () => {
    using box = uefiSandbox();
    await box.ok(["@create", "E", iso.installerIso]);
    await box.ok(["--no-uefi", "@run", "@run"]);
    expect(runNumber(box)).toBe(1);
    expect(box.read(".work/run-vm.sh")).toContain("-machine pc ");

    using bios = smallSandbox();
    await bios.ok(["@create", "B", iso.installerIso]);
    expect(existsSync(bios.path(".work/efivars.bin"))).toBe(false);
    await bios.ok(["-u", "-m", "256M", "run", iso.efiIso]);
    expect(bios.console()).toContain("BOOTED FROM CD");
    expect(mode(bios.path(".work/efivars.bin"))).toBe("600");
  });
});
