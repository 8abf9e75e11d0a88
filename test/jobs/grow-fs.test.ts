import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { exec } from "../../src/process/exec.ts";
import { Temp } from "../fixtures/temp.ts";
import { ROOT } from "./hook.ts";

const record = (name: string): string => `#!/bin/bash\necho "${name} $*" >>"$STATE/calls"\n`;

/** Tools of a system whose disk is in STATE: `TYPE.vdb` is what blkid says of it, `dump` its partition table. */
const FAKES: Readonly<Record<string, string>> = {
  blkid: '#!/bin/bash\ncat "$STATE/$3.${6##*/}" 2>/dev/null\n',
  sfdisk: `${record("sfdisk")}if [ "$1" = --dump ]; then cat "$STATE/dump"; else cat >/dev/null; fi\n`,
  blockdev: "#!/bin/sh\necho $((100 << 20))\n",
  findmnt: '#!/bin/bash\ncat "$STATE/mounted" 2>/dev/null\n',
  lsblk: '#!/bin/bash\necho "$6 part"; [ ! -e "$STATE/open" ] || echo "$STATE/open crypt"\n',
  cryptsetup: `${record("cryptsetup")}case $1 in
status) cat "$STATE/open" ;;
open) [ -e "$STATE/token" ] ;;
esac
`,
  "mount-system": `${record("mount-system")}exit 1\n`,
  modprobe: "#!/bin/sh\n",
  sync: "#!/bin/sh\n",
  lvm: `${record("lvm")}case $1 in
pvs) echo group ;;
lvs) cat "$STATE/volumes" ;;
vgs) echo 25 ;;
esac
`,
  e2fsck: `${record("e2fsck")}exit "$(cat "$STATE/errors" 2>/dev/null || echo 0)"\n`,
  ...Object.fromEntries(["partx", "resize2fs", "mount", "umount"].map((name) => [name, record(name)])),
};

const GPT = `label: gpt
sector-size: 512
/dev/vdb1 : start=2048, size=8192, type=X
/dev/vdb2 : start=10240, size=81920, type=X
`;

/** A mount namespace with a disk of this serial number. */
const START = `
mount --make-rprivate / && mount -t tmpfs none /sys && mkdir -p /sys/block/vdb && echo disk-1 >/sys/block/vdb/serial || exit 99
PATH=$1/bin:/usr/bin:/bin STATE=$1/state INDIR=/nonexistent
export STATE
fatal() { printf 'fatal: %s\\n' "$*"; exit 1; }
run() { "$@"; }
set -efu
. "$2" disk-1
`;

/** Runs the job on a disk. @param state files; `without`: a program that is missing. @returns its output, and the calls that change the disk */
async function grow(state: Readonly<Record<string, string>>) {
  using temp = new Temp();
  temp.directory("state");
  for (const [name, text] of Object.entries(FAKES))
    if (name !== state.without) chmodSync(temp.write(join("bin", name), text), 0o700);
  for (const [name, text] of Object.entries(state)) temp.write(join("state", name), text);
  const job = temp.write("job", readFileSync(join(ROOT, "jobs/grow-fs.job")));
  const argv = ["unshare", "-m", "bash", "-c", START, "guest", temp.top, job];
  const { status, stdout } = await exec(argv, { anyStatus: true });
  const calls = temp.path("state/calls");
  const lines = existsSync(calls) ? readFileSync(calls, "utf8").trim().split("\n") : [];
  const reads = /^(sfdisk --dump|cryptsetup (status|open)|lvm (pvs|lvs|vgs|vg)|e2fsck|mount-system)/;
  return { status, said: stdout.trim(), changes: lines.filter((line) => !reads.test(line)) };
}

const LUKS = { "PTTYPE.vdb": "gpt", dump: GPT, "TYPE.vdb2": "crypto_LUKS" };

describe.skipIf(process.getuid!() !== 0)("grow-fs.job (needs root)", () => {
  test("ext4 on a GPT partition: the partition, then the filesystem", async () => {
    const { status, changes } = await grow({ "PTTYPE.vdb": "gpt", dump: GPT, "TYPE.vdb2": "ext4" });
    expect(status).toBe(0);
    expect(changes).toEqual([
      "sfdisk --quiet --force --no-reread --relocate gpt-bak-std /dev/vdb",
      "sfdisk --quiet --force --no-reread -N 2 /dev/vdb",
      "partx --update --nr 2 /dev/vdb",
      "resize2fs /dev/vdb2",
    ]);
  });

  test("ext4 on the whole disk", async () => {
    expect(await grow({ "TYPE.vdb": "ext4" })).toMatchObject({ status: 0, changes: ["resize2fs /dev/vdb"] });
  });

  test("LUKS that is open, with its key within reach", async () => {
    const { status, changes } = await grow({
      ...LUKS,
      open: "key location: dm-crypt\n",
      "TYPE.open": "ext4",
    });
    expect(status).toBe(0);
    expect(changes.slice(-2)).toEqual([
      expect.stringMatching(/^cryptsetup resize .*\/open$/),
      expect.stringMatching(/^resize2fs .*\/open$/),
    ]);
  });

  test("LUKS whose key is in a token", async () => {
    const open = "key location: keyring\n";
    const { status, changes } = await grow({ ...LUKS, open, token: "", "TYPE.open": "ext4" });
    expect({ status, last: changes.at(-1) }).toMatchObject({
      status: 0,
      last: expect.stringMatching(/^resize2fs/),
    });
  });

  test("LVM: the only volume with a filesystem", async () => {
    const volumes = "/dev/group/swap\n/dev/group/root\n";
    const state = { "TYPE.vdb": "LVM2_member", volumes, "TYPE.root": "ext4", "TYPE.swap": "swap" };
    expect(await grow(state)).toMatchObject({
      status: 0,
      changes: [
        "lvm pvresize /dev/vdb",
        "lvm lvextend --noudevsync -l +100%FREE /dev/group/root",
        "resize2fs /dev/group/root",
      ],
    });
  });

  test.each<[what: string, state: Record<string, string>, said: string | RegExp]>([
    ["LUKS without a passphrase", LUKS, /vdb2 \(LUKS\) is not open: .* on a terminal/],
    ["LUKS in a running guest, closed", { ...LUKS, without: "mount-system" }, /vdb2 \(LUKS\) is not open/],
    [
      "LUKS whose key cannot be read again",
      { ...LUKS, open: "key location: keyring\n", "TYPE.open": "ext4" },
      /grows with its passphrase only: .* on a terminal/,
    ],
    [
      "swap on the last partition",
      { ...LUKS, "TYPE.vdb2": "swap" },
      "/dev/vdb2 has swap, which cannot be grown",
    ],
    [
      "nothing on the last partition",
      { ...LUKS, "TYPE.vdb2": "" },
      "/dev/vdb2 has neither partitions nor a filesystem",
    ],
    ["an empty disk", {}, "/dev/vdb has neither partitions nor a filesystem"],
    [
      "an unknown filesystem on the whole disk",
      { "TYPE.vdb": "ntfs" },
      "/dev/vdb has ntfs, which cannot be grown",
    ],
    ["a table without partitions", { "PTTYPE.vdb": "dos", dump: "label: dos\n" }, "without partitions"],
    [
      "LVM without a filesystem",
      { "TYPE.vdb": "LVM2_member", volumes: "/dev/group/swap\n", "TYPE.swap": "swap" },
      "no logical volume of the group group has a filesystem",
    ],
    ["a missing program", { "TYPE.vdb": "xfs" }, "needs xfs_growfs, which is not installed"],
    [
      "ext4 with errors",
      { ...LUKS, "TYPE.vdb2": "ext4", errors: "4" },
      "the filesystem on /dev/vdb2 has errors",
    ],
  ])("%s: refused, nothing is changed", async (_what, state, said) => {
    const result = await grow(state);
    expect(result.said).toMatch(said);
    expect(result).toMatchObject({ status: 1, changes: [] });
  });
});
