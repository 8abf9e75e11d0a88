/**
 * Jobs in a rescue CD: a stand-in for ALT Rescue, made of Debian's packages (test/standin), repacked by the
 * program as a user would.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildStandinIso } from "../standin/build.ts";
import { checkout, Sandbox } from "./harness.ts";
import { configure, names, smallSandbox, suite } from "./tools.ts";

const SETTINGS = "MEMORY=64M\nPORT=\nDISKS=( AHCI=300M )\n";

suite(
  "jobs in a rescue CD",
  () => {
    let base: Sandbox;
    let profiles: string;

    beforeAll(async () => {
      base = new Sandbox();
      profiles = join(base.top, "profiles");
      configure(base, `PROFILES="${profiles}"\nPORT=\n`);
      const iso = await buildStandinIso(join(checkout, ".cache/standin"));
      await base.ok(["rescue", "build", `--iso=${iso}`]);
    }, 300_000);
    afterAll(() => base?.[Symbol.dispose]());

    function jobSandbox(): Sandbox {
      const box = smallSandbox();
      configure(box, `${SETTINGS}PROFILES="${profiles}"\nRESCUE_MEMORY=1G\nRESCUE_START_TIMEOUT=300\n`);
      return box;
    }

    test("the profile is listed as usable", async () => {
      expect((await base.ok(["rescue", "list"])).stdout).toMatch(/^rescue-x86_64 +CD +usable +\d+ MiB$/m);
      expect(names(join(profiles, "rescue-x86_64"))).toEqual(["guest.env", "rescue-x86_64.iso"]);
    });

    test("by BIOS: an installed system gets its keys, and statuses pass", async () => {
      using box = jobSandbox();
      await box.ok(["create", "G"]);
      box.write(
        "install.job",
        `mke2fs -q -t ext4 /dev/sda
         mkdir /mnt/new; mount /dev/sda /mnt/new; cd /mnt/new
         mkdir etc root proc sys dev
         echo /dev/sda / ext4 defaults 0 0 >etc/fstab; echo NAME=Test >etc/os-release
         echo root:x:0:0:root:/root:/bin/sh >etc/passwd\n`,
      );
      mkdirSync(join(box.home, ".ssh"));
      writeFileSync(join(box.home, ".ssh/id_rsa.pub"), "ssh-rsa AAAAB3 me@here\n");
      await box.ok(["@job", "install", "@job", "add-ssh-keys"], { timeoutSeconds: 500 });
      box.write("show.job", "mount-system; cat /mnt/system1/root/.ssh/authorized_keys; exit 42\n");
      const result = await box.vm(["job", "show"], { timeoutSeconds: 300 });
      expect(result.status).toBe(42);
      expect(result.stdout).toContain("ssh-rsa AAAAB3 me@here");
      expect(await box.leftovers()).toEqual([]);
    }, 600_000);

    test("by UEFI", async () => {
      using box = jobSandbox();
      await box.ok(["--uefi", "create", "G"]);
      box.write("efi.job", "[ -d /sys/firmware/efi ] && echo EFI; exit 255\n");
      const result = await box.vm(["job", "efi"], { timeoutSeconds: 400 });
      expect({ status: result.status, stdout: result.stdout }).toEqual({ status: 255, stdout: "EFI\n" });
    }, 600_000);
  },
  ["mksquashfs", "xorriso"],
);
