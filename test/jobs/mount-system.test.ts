import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { exec } from "../../src/process/exec.ts";
import { Temp } from "../fixtures/temp.ts";
import { ROOT } from "./hook.ts";

/** md, LUKS and LVM stacked: each program makes the next layer visible. */
const FAKES: Readonly<Record<string, string>> = {
  blkid: `#!/bin/bash
show() { printf 'DEVNAME=%s\\nUUID=%s\\nTYPE=%s\\n\\n' "$@"; }
echo blkid >>"$STATE/calls"
show /dev/sdb1 r1 linux_raid_member
show /dev/sda1 r1 linux_raid_member
show /dev/loop7 l7 crypto_LUKS
[ ! -e "$STATE/md" ] || show /dev/md0 c1 crypto_LUKS
[ ! -e "$STATE/luks" ] || show /dev/mapper/luks-c1 v1 LVM2_member
[ ! -e "$STATE/lvm" ] || show /dev/mapper/vg-root x1 ext4
`,
  modprobe: "#!/bin/sh\n",
  mdadm: '#!/bin/sh\necho "mdadm $*" >>"$STATE/calls"; : >"$STATE/md"\n',
  lvm: '#!/bin/sh\necho "lvm $*" >>"$STATE/calls"; : >"$STATE/lvm"\n',
  cryptsetup: `#!/bin/bash
echo "cryptsetup $*" >>"$STATE/calls"
[ "$(cat)" = secret ] && : >"$STATE/luks"
`,
  "ask-host": `#!/bin/bash
echo "ask $1" >>"$STATE/calls"
[ -e "$STATE/answers" ] || exit 1
head -n 1 "$STATE/answers"; sed -i 1d "$STATE/answers"
`,
};

async function open(answers?: string) {
  using temp = new Temp();
  for (const [name, text] of Object.entries(FAKES)) chmodSync(temp.write(join("bin", name), text), 0o700);
  temp.directory("state");
  if (answers !== undefined) temp.write("state/answers", answers);
  const done = await exec(["bash", join(ROOT, "scripts/rescue/mount-system"), "--open"], {
    env: { PATH: `${temp.path("bin")}:${process.env["PATH"]}`, STATE: temp.path("state") },
    anyStatus: true,
  });
  const calls = readFileSync(temp.path("state/calls"), "utf8").split("\n");
  return { errors: done.stderr, calls: calls.filter((line) => line && line !== "blkid") };
}

// The path of the key file is fixed; where it exists, this must be tested manually.
describe.skipIf(existsSync("/tmp/.in/luks.key"))("mount-system --open", () => {
  const md = "mdadm --assemble --scan --run --homehost=any";
  const ask = "ask Passphrase for /dev/md0 (c1): ";
  const luks = "cryptsetup open --type luks --disable-keyring --key-file - /dev/md0 luks-c1";

  test("opens LVM on LUKS on md, and asks again after a wrong passphrase", async () => {
    const { calls } = await open("wrong\nsecret\n");
    const again = ask.replace("Passphrase", "That does not open it; passphrase");
    expect(calls).toEqual([md, ask, luks, again, luks, "lvm vgchange -ay --noudevsync", "lvm vgmknodes"]);
  });

  test("without an answer, continues and prints what to do", async () => {
    const { calls, errors } = await open();
    expect(calls).toEqual([md, ask]);
    expect(errors).toContain("/dev/md0 stays closed: put its key into .in/luks.key");
  });
});
