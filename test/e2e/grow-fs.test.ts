/** `disk resize --fs` in a rescue built from the host's kernel, with real filesystems. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Sandbox } from "./harness.ts";
import { configure, sampled, smallSandbox, suiteInTurn } from "./tools.ts";

/** How a disk is filled: commands of a job, which leave the filesystem in `fs`. */
const FILLED: Record<string, string> = {
  "ext4 without partitions": `mkfs.ext4 -q "$disk"; fs=$disk`,
  "ext4 on a GPT partition": `printf 'label: gpt\\n, 4M\\n, +\\n' | sfdisk -q "$disk"; fs=\${disk}2; mkfs.ext4 -q "$fs"`,
  "ext4 on a logical partition": `printf 'label: dos\\n, 8M\\n, +, E\\n, +\\n' | sfdisk -q "$disk"; fs=\${disk}5; mkfs.ext4 -q "$fs"`,
  "xfs on a DOS partition": `printf 'label: dos\\n, +\\n' | sfdisk -q "$disk"; fs=\${disk}1; mkfs.xfs -q "$fs"`,
  "btrfs on a GPT partition": `printf 'label: gpt\\n, +\\n' | sfdisk -q "$disk"; fs=\${disk}1; mkfs.btrfs -q "$fs"`,
  "ext4 on LVM on a GPT partition": `printf 'label: gpt\\n, +\\n' | sfdisk -q "$disk"
    modprobe dm_mod; export DM_DISABLE_UDEV=1
    lvm pvcreate -q "\${disk}1"; lvm vgcreate -q group "\${disk}1"; lvm lvcreate -q -n swap -L 8M group
    lvm lvcreate -q -n root -l 100%FREE group; mkswap /dev/group/swap >/dev/null; fs=/dev/group/root; mkfs.ext4 -q "$fs"`,
};

const FILL = (how: string): string => `
disk=/dev/vdb
${how}
mkdir /mnt/new; mount "$fs" /mnt/new
head -c 3000000 /dev/urandom >/mnt/new/data; sha256sum </mnt/new/data >/mnt/new/sum
echo "$fs" >"$OUTDIR/fs"
`;

const MOUNT = `
modprobe dm_mod; export DM_DISABLE_UDEV=1
lvm vgchange -ay --noudevsync >/dev/null 2>&1 || :
lvm vgmknodes >/dev/null 2>&1 || :
fs=$(cat "$INDIR/fs")
mkdir /mnt/new; mount "$fs" /mnt/new
`;

/** Prints the size of the filesystem in MiB. */
const CHECK = `${MOUNT}
sha256sum </mnt/new/data | cmp - /mnt/new/sum
df -m /mnt/new | awk 'END { print $2 }' >"$OUTDIR/size"
`;

suiteInTurn(1)("disk resize --fs", () => {
  let base: Sandbox;
  let profiles: string;

  beforeAll(async () => {
    base = smallSandbox();
    profiles = join(base.top, "profiles");
    configure(base, `PROFILES="${profiles}"\nPORT=\n`);
    await base.ok(["rescue", "build"]);
  });
  afterAll(() => base?.[Symbol.dispose]());

  describe.each(sampled(Object.keys(FILLED), 0))("%s", (what) => {
    test("grows, and keeps its data", async () => {
      using box = smallSandbox();
      box.environment.XDG_CACHE_HOME = join(profiles, "../cache");
      configure(
        box,
        `MEMORY=64M\nPORT=\nDISKS=(VIRT=16M VIRT=400M)\nPROFILES="${profiles}"\nRESCUE_MEMORY=512M\nRESCUE_CORES=1\n`,
      );
      await box.ok(["create", "G"]);
      box.write("fill.job", FILL(FILLED[what]!));
      box.write("check.pre", `cp fs "$WORKDIR/.in/fs"\n`);
      box.write("check.job", CHECK);
      await box.ok(["job", "fill"]);
      box.write("fs", box.read(".work/.out/fs"));
      await box.ok(["disk", "resize", "1", "+400M", "--fs"]);
      await box.ok(["job", "check"]);
      expect(Number(box.read(".work/.out/size"))).toBeGreaterThan(650);
      // Once more: there is nothing to do.
      await box.ok(["disk", "resize", "1", "800M", "--fs"]);
      // Mounted, as in a running guest.
      box.write(
        "mounted.pre",
        `cp fs "$WORKDIR/.in/"; echo disk-1 >"$WORKDIR/.in/DISK"; cp grow.sh "$WORKDIR/.in/"\n`,
      );
      box.write(
        "mounted.job",
        `${MOUNT}set -e; . "$INDIR/grow.sh"; df -m /mnt/new | awk 'END { print $2 }' >"$OUTDIR/size"\n`,
      );
      box.write("grow.sh", readFileSync(join(import.meta.dir, "../../jobs/grow-fs.job"), "utf8"));
      await box.ok(["disk", "resize", "1", "+200M"]);
      await box.ok(["job", "mounted"]);
      expect(Number(box.read(".work/.out/size"))).toBeGreaterThan(850);
    });
  });
});
