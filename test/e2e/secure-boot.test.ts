/** Secure Boot with the distribution's keys: OVMF in system management mode. */
import { expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { buildSignedDisk } from "../guests/signed.ts";
import { checkout, guests, until, type Sandbox } from "./harness.ts";
import { configure, sha256, smallSandbox, suiteInTurn } from "./tools.ts";

async function install(box: Sandbox, disk: string): Promise<void> {
  rmSync(box.path(".work/disk-0.img"));
  await Bun.$`qemu-img convert -f raw -O qcow2 ${disk} ${box.path(".work/disk-0.img")}`.quiet();
}

suiteInTurn(5, 8)("Secure Boot", () => {
  test("refuses an unsigned boot loader, and boots a signed one; the variables are in the snapshot", async () => {
    const { efiDisk } = await guests();
    const signed = await buildSignedDisk(join(checkout, ".cache/guests"), efiDisk);
    using box = smallSandbox();
    configure(box, "MEMORY=256M\nCORES=1\nPORT=\nDISKS=(AHCI=16M)\nUSENETDEV=\n");
    await box.ok(["--uefi", "--secure-boot", "create", "S"]);

    await install(box, efiDisk);
    await box.ok(["run", "--detach"]);
    await until("the firmware's refusal", () => box.console().includes("Access Denied"));
    expect(box.console()).not.toContain("BOOTED FROM DISK");
    await box.ok(["stop", "--force"]);

    await install(box, signed);
    await box.ok(["run"]);
    expect(box.console()).toContain("BOOTED SIGNED");
    const variables = sha256(box.path(".work/efivars.bin"));
    await box.ok(["@backup", "@destroy", "@restore"]);
    expect(sha256(box.path(".work/efivars.bin"))).toBe(variables);
  });
});
