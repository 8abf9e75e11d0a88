/**
 * A UEFI disk that boots under Secure Boot: Debian's shim, signed by Microsoft, and its GRUB, which prints `BOOTED SIGNED` and
 * powers off. Needs the package lists and the network once (`apt-get download`).
 */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const PACKAGES = ["shim-signed", "grub-efi-amd64-signed"];

/** @param efiDisk an unsigned one (build.ts), whose partition is used @returns its path; shared, must not be written to */
export async function buildSignedDisk(cache: string, efiDisk: string): Promise<string> {
  const final = join(cache, "signed-disk.img");
  if (existsSync(final)) return final;
  mkdirSync(cache, { recursive: true });
  const scratch = mkdtempSync(join(cache, "building-"));
  try {
    await Bun.$`apt-get download -o APT::Sandbox::User=root ${PACKAGES}`.cwd(scratch).quiet();
    await Bun.$`bash -ec ${'for deb in *.deb; do dpkg-deb -x "$deb" tree; done'}`.cwd(scratch).quiet();
    copyFileSync(efiDisk, join(scratch, "disk.img"));
    writeFileSync(join(scratch, "grub.cfg"), "echo BOOTED SIGNED\nhalt\n");
    const partition = `disk.img@@${2048 * 512}`;
    const lib = "tree/usr/lib";
    const files = [
      [`${lib}/shim/shimx64.efi.signed`, "::/EFI/BOOT/BOOTX64.EFI"],
      [`${lib}/grub/x86_64-efi-signed/grubx64.efi.signed`, "::/EFI/BOOT/grubx64.efi"],
      // The directory that is compiled into the signed GRUB.
      ["grub.cfg", "::/EFI/debian/grub.cfg"],
    ];
    await Bun.$`mmd -i ${partition} ::/EFI/debian`.cwd(scratch).quiet();
    for (const [from, to] of files) await Bun.$`mcopy -o -i ${partition} ${from} ${to}`.cwd(scratch).quiet();
    renameSync(join(scratch, "disk.img"), final);
  } finally {
    rmSync(scratch, { recursive: true });
  }
  return final;
}
