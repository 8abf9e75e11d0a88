/** Guests that boot by UEFI. */
import { beforeAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DISK_BUSES } from "../../src/machine/types.ts";
import type { Guests } from "../guests/build.ts";
import { holdsText, withBootEntry } from "../guests/efi-variables.ts";
import { guests, type Sandbox } from "./harness.ts";
import {
  configure,
  expectError,
  mode,
  runNumber,
  sampled,
  sha256,
  shell,
  smallSandbox,
  suite,
  testInTurn,
} from "./tools.ts";

/** Debian's firmware of 2 MiB, which the earlier program used: its variables have 128 KiB. */
const SMALL = { code: "/usr/share/OVMF/OVMF_CODE.fd", vars: "/usr/share/OVMF/OVMF_VARS.fd" };
const SMALL_BYTES = 131_072;
const ENTRY = "Own entry";

let iso: Guests;

function uefiSandbox(): Sandbox {
  const box = smallSandbox();
  configure(box, "MEMORY=256M\nCORES=1\nPORT=\nUEFI=1\nDISKS=(AHCI=16M)\n");
  return box;
}

/** Replaces the VM's disk by the bootable UEFI disk. */
async function installEfiDisk(box: Sandbox): Promise<void> {
  rmSync(box.path(".work/disk-0.img"));
  await Bun.$`qemu-img convert -f raw -O qcow2 ${iso.efiDisk} ${box.path(".work/disk-0.img")}`.quiet();
}

suite("UEFI", () => {
  beforeAll(async () => {
    iso = await guests();
  });

  test("the CD boots once, the disk afterwards; the snapshot has the NVRAM", async () => {
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

  test.each(sampled(DISK_BUSES, 0))("%s: boots a disk attached with --image", async (bus) => {
    using box = uefiSandbox();
    await Bun.$`cp ${iso.efiDisk} ${box.path("efi disk,1.img")}`;
    await box.ok(["--disks=", "create", "E"]);
    await box.ok([`--image=${bus}=raw=efi disk,1.img`, "run"]);
    expect(box.console()).toContain("BOOTED FROM DISK");
  });

  testInTurn(0, 4)("a UEFI VM boots by BIOS with --no-uefi, and vice versa", async () => {
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

  testInTurn(5, 8)(
    "a snapshot of the earlier program boots by its own NVRAM entry, in both programs",
    async () => {
      using box = uefiSandbox();
      const old = box.path("backups/S0");
      await makeEarlierSnapshot(old);
      symlinkSync("S0", box.path("backups/LAST"));
      await box.ok(["@restore", "@run"]);
      expect(box.console()).toContain("BOOTED FROM DISK");
      expect(box.read(".work/run-vm.sh")).toContain(SMALL.code);
      const variables = box.path(".work/efivars.bin");
      expect(statSync(variables).size).toBe(SMALL_BYTES);
      expect(holdsText(readFileSync(variables), ENTRY)).toBe(true);

      await box.ok(["@backup", "@destroy"]);
      expect(await bootEarlier(box, "S1")).toContain("BOOTED FROM DISK");
    },
  );

  test("variables without a firmware: run fails (69), with a hint", async () => {
    using box = uefiSandbox();
    await box.ok(["create", "E"]);
    const variables = join(box.work, "efivars.bin");
    writeFileSync(variables, Buffer.alloc(65_536));
    const refused = await box.vm(["run"]);
    expectError(refused, 69, /cannot boot with the UEFI variables .*efivars\.bin: .* of 65536 bytes/);
    const paste = /mv \S+ \S+\.old/.exec(refused.stderr)![0];
    await shell(paste, box.host);
    await box.ok(["run", iso.efiIso]);
    expect(box.console()).toContain("BOOTED FROM CD");
  });
});

/** A snapshot of the earlier program, of a disk that boots only by an entry in the variables. */
async function makeEarlierSnapshot(dir: string): Promise<void> {
  mkdirSync(dir, { recursive: true });
  const disk = join(dir, "disk.raw");
  const partition = `${disk}@@${2048 * 512}`;
  await shell(
    `cp "$DISK" disk.raw
     mmd -i ${partition} ::/EFI/own
     mmove -i ${partition} ::/EFI/BOOT/BOOTX64.EFI ::/EFI/own/start.efi
     qemu-img convert -f raw -O qcow2 disk.raw disk-0.img; rm disk.raw`.replace("$DISK", iso.efiDisk),
    dir,
  );
  const entry = { title: ENTRY, program: String.raw`\EFI\own\start.efi` };
  const place = { firstSector: 2048, sectors: (16 << 20) / 512 - 2048 };
  writeFileSync(join(dir, "efivars.bin"), withBootEntry(readFileSync(SMALL.vars), { ...entry, ...place }));
  await shell("gzip -9 disk-0.img efivars.bin", dir);
  const settings = [
    'GUESTNAME="OLD"\nQEMUARCH="x86_64"\nSOCKETS="1"\nCORES="1"\nMEMORY="256M"\nUEFI="1"\nISO=""\nKEEPCD=""',
    'FORWARDS=""\nHOST="localhost"\nPORT=""\nUSENETDEV="1"\nSHARES=()\nIMAGES=( "AHCI=disk-0.img" )\n',
  ];
  writeFileSync(join(dir, "guest.env"), settings.join("\n"));
  writeFileSync(join(dir, "TS"), "2021-03-04 05:06:07\n");
  writeFileSync(join(dir, "DESCRIPTION"), "");
}

/** Unpacks a snapshot and boots it like the earlier program. @returns the output of the serial line */
async function bootEarlier(box: Sandbox, name: string): Promise<string> {
  const dir = box.path("by-hand");
  mkdirSync(dir);
  await shell(
    `for file in disk-0.img efivars.bin; do unpigz < ../backups/${name}/$file.gz > $file; done
     timeout 100 qemu-system-x86_64 -machine q35 -m 256M -display none -nodefaults -serial file:serial.log \\
       -drive if=pflash,format=raw,readonly=on,file=${SMALL.code} -drive if=pflash,format=raw,file=efivars.bin \\
       -drive if=none,id=disk0,format=qcow2,file=disk-0.img -device ide-hd,drive=disk0,bus=ide.0`,
    dir,
  );
  return readFileSync(join(dir, "serial.log"), "latin1");
}
