/** Network boot from qemu's own TFTP server: after an empty disk, and first. */
import { expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Sandbox } from "./harness.ts";
import { configure, expectError, installed, shell, smallSandbox, suiteInTurn } from "./tools.ts";

const GUESTS = resolve(import.meta.dir, "../guests");

/** A program that PXE loads at the address of a boot sector. */
const BIOS_PROGRAM = `bits 16
org 0x7c00
%include "bios.asm"
main:
	print "BOOTED FROM NETWORK", LF
	jmp poweroff
	times 1024 - ($ - $$) db 0
`;

const GRUB = `serial --unit=0 --speed=115200
terminal_output serial
echo BOOTED FROM NETWORK
halt
`;

/** A directory with a comma and a blank in its name, and programs for both firmwares. */
async function withPrograms(box: Sandbox): Promise<string> {
  const directory = join(box.top, "boot, files");
  mkdirSync(directory);
  writeFileSync(join(box.top, "net.asm"), BIOS_PROGRAM);
  writeFileSync(join(box.top, "grub.cfg"), GRUB);
  await shell(`nasm -f bin -I${GUESTS}/ -o '${directory}/net.0' net.asm`, box.top);
  await shell(
    `grub-mkimage -O x86_64-efi -p / -c grub.cfg -o '${directory}/net.efi' serial terminal echo halt`,
    box.top,
  );
  return directory;
}

suiteInTurn(7, 8)(
  "network boot",
  () => {
    test.each([
      ["BIOS", "net.0"],
      ["UEFI", "net.efi"],
    ])("%s: last, behind an empty disk", async (firmware, file) => {
      using box = smallSandbox();
      configure(
        box,
        `MEMORY=256M\nCORES=1\nPORT=\nDISKS=(VIRT=16M)\n${firmware === "UEFI" ? "UEFI=1\n" : ""}`,
      );
      const directory = await withPrograms(box);
      await box.ok(["create", "N"]);
      await box.ok(["set", `NETBOOT_DIR=${directory}`, `NETBOOT_FILE=${file}`]);
      await box.ok(["run"]);
      expect(box.console()).toContain("BOOTED FROM NETWORK");
    });

    test("behind a disk that boots, and before it with --netboot; not if it is off", async () => {
      using box = await installed();
      const directory = await withPrograms(box);
      await box.ok(["set", `NETBOOT_DIR=${directory}`, "NETBOOT_FILE=net.0"]);
      await box.ok(["run"]);
      expect(box.console()).toContain("RUN ");
      await box.ok(["--netboot", "run"]);
      expect(box.console()).toContain("BOOTED FROM NETWORK");
      await box.ok(["set", "NETBOOT=first"]);
      await box.ok(["--no-netboot", "run"]);
      expect(box.console()).toContain("RUN ");
    });

    test("a directory that does not exist (66)", async () => {
      using box = smallSandbox();
      await box.ok(["create", "N"]);
      await box.ok(["set", "NETBOOT_DIR=/does/not/exist"]);
      expectError(await box.vm(["run"]), 66, /no such directory/);
    });
  },
  ["nasm", "grub-mkimage"],
);
