/** A TPM with a real swtpm: what the guest seals in it is in its snapshots. */
import { expect, test } from "bun:test";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { buildInitrd } from "./linux-initrd.ts";
import { guests, until, type Sandbox } from "./harness.ts";
import { configure, mode, shell, smallSandbox, suiteInTurn } from "./tools.ts";

/** Seals a secret by the TPM and keeps the sealed object on the disk, or unseals it. */
const SCRIPT = `cd /tmp
export TPM2TOOLS_TCTI=device:/dev/tpmrm0
t() { /usr/bin/tpm2 "$@"; }
t createprimary -Q -G ecc -C o -c primary || echo NO TPM
tar xf /dev/sda 2>/dev/null
if [ -e pub ]; then
  t load -Q -C primary -u pub -r priv -c sealed && echo "UNSEALED $(t unseal -c sealed)" || echo LOST
else
  printf 'secret %s' 42 | t create -Q -C primary -i - -u pub -r priv && tar cf /dev/sda pub priv && sync
  echo SEALED
  sleep 1000
fi
`;

/** Puts tpm2-tools and its libraries into the guest's initramfs. */
async function addTools(box: Sandbox): Promise<void> {
  mkdirSync(join(box.top, "root"));
  await shell(
    `set -- "$(command -v tpm2)" "$(ldconfig -p | awk '/libtss2-tcti-device.so.0 /{print $NF; exit}')"
     { printf '%s\\n' "$@"; ldd "$@" | grep -o '/[^ :]*[.]so[^ :]*'; } | sort -u | xargs cp -L --parents -t root`,
    box.top,
  );
}

suiteInTurn(1, 8)(
  "a TPM",
  () => {
    test("unseals after a restore what was sealed before, from a live snapshot and from one of a VM that is off", async () => {
      const built = await guests();
      using box = smallSandbox();
      configure(box, "MEMORY=256M\nCORES=1\nPORT=\nSHARES=()\nDISKS=(AHCI=16M)\n");
      await box.ok(["--tpm", "create", "T"]);
      await addTools(box);
      const initrd = await buildInitrd(box, built, SCRIPT);
      box.write("vm.defaults", `-kernel ${built.kernel} -initrd ${initrd} -append "${built.append}"\n`);
      await box.ok(["run", "--detach"]);
      await until("the guest has sealed", () => /SEALED|NO TPM/.test(box.console()));
      expect(box.console()).not.toContain("NO TPM");
      expect(mode(box.path(".work/.vm-tpm"))).toBe("700");
      expect(mode(box.path(".work/.vm-tpm/tpm2-00.permall"))).toBe("600");
      await box.ok(["backup", "live"]);
      await box.ok(["stop"]);
      expect(await box.leftovers()).toEqual([]);
      await box.ok(["backup", "--format=qcow2", "off"]);

      rmSync(join(box.work, ".vm-tpm"), { recursive: true });
      await box.ok(["run"]);
      expect(box.console()).toContain("LOST");

      for (const name of ["live", "off"]) {
        await box.ok(["@restore", name, "@run"]);
        expect(box.console()).toContain("UNSEALED secret 42");
      }
      await box.ok(["destroy"]);
      expect(await box.leftovers()).toEqual([]);
    });
  },
  ["swtpm", "tpm2", "cpio"],
);
