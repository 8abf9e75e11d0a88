/**
 * Jobs in a rescue CD: a replacement for ALT Rescue, made of Debian's packages (test/standin), repacked by the
 * program as a user would. On other days the bundled jobs run in it, by UEFI too: debian.test.ts.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { buildStandinIso } from "../standin/build.ts";
import { checkout, Sandbox } from "./harness.ts";
import { configure, names, smallSandbox, suiteInTurn } from "./tools.ts";

const SETTINGS = "MEMORY=64M\nPORT=\nDISKS=( AHCI=300M )\n";

suiteInTurn(5, 8)(
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
      const recovery = join(base.top, "recovery");
      for (const [name, text] of Object.entries({
        autorun: 'export FROM_AUTORUN=yes\nexec "${0%/*}/vm-runner"\n',
        "tools/my tool": "echo tool\n",
      })) {
        mkdirSync(dirname(join(recovery, name)), { recursive: true });
        writeFileSync(join(recovery, name), `#!/bin/sh\n${text}`, { mode: 0o755 });
      }
      const own = ["--name=own", `--iso=${iso}`, `--recovery=${recovery}`, "--append=panic=7 my.key=a,b"];
      await base.ok(["rescue", "build", ...own]);
    });
    afterAll(() => base?.[Symbol.dispose]());

    function jobSandbox(): Sandbox {
      const box = smallSandbox();
      configure(box, `${SETTINGS}PROFILES="${profiles}"\nRESCUE_MEMORY=1G\nRESCUE_START_TIMEOUT=600\n`);
      return box;
    }

    test("the profile is listed as usable", async () => {
      expect((await base.ok(["rescue", "list"])).stdout).toMatch(/^rescue-x86_64 +CD +- +usable +\d+ MiB$/m);
      expect(names(join(profiles, "rescue-x86_64"))).toEqual(["guest.env", "rescue-x86_64.iso"]);
    });

    test("by BIOS", async () => {
      using box = jobSandbox();
      await box.ok(["create", "G"]);
      box.write("bios.job", "[ -d /sys/firmware/efi ] || echo BIOS; [ -b /dev/sda ] && echo disk; exit 42\n");
      const result = await box.vm(["job", "bios"]);
      expect({ status: result.status, stdout: result.stdout }).toEqual({
        status: 42,
        stdout: "BIOS\ndisk\n",
      });
      expect(await box.leftovers()).toEqual([]);
    });

    test.each(["--no-uefi", "--uefi"])(
      "with files and kernel arguments of the user, %s",
      async (firmware) => {
        using box = jobSandbox();
        await box.ok([firmware, "create", "G"]);
        box.write("own.job", 'cat /proc/cmdline; "$RECOVERYDIR/tools/my tool"; echo "$FROM_AUTORUN"\n');
        const { stdout } = await box.ok(["--rescue=own", "job", "own"]);
        const [line = "", ...rest] = stdout.trim().split("\n");
        expect(line.split(" ").filter((word) => /^(panic|my[.]key)=/.test(word))).toEqual([
          "panic=7",
          "my.key=a,b",
        ]);
        expect(rest).toEqual(["tool", "yes"]);
      },
    );
  },
  ["mksquashfs", "xorriso"],
);
