/** `disk resize --fs` with real filesystems: in a rescue built from the host's kernel, and in a running guest by its agent. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { guests, until, type Sandbox } from "./harness.ts";
import {
  configure,
  expectError,
  sampled,
  shell,
  smallSandbox,
  suiteInTurn,
  typePassphrase,
  turnsOf,
} from "./tools.ts";

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

suiteInTurn(2, 4)("disk resize --fs", () => {
  let base: Sandbox;
  let profiles: string;

  beforeAll(async () => {
    base = smallSandbox();
    profiles = join(base.top, "profiles");
    configure(base, `PROFILES="${profiles}"\nPORT=\n`);
    await base.ok(["rescue", "build"]);
  });
  afterAll(() => base?.[Symbol.dispose]());

  describe.each(sampled(Object.keys(FILLED), 0, 1, turnsOf(4)))("%s", (what) => {
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

  test("LUKS: without a passphrase nothing is changed; on a terminal it grows", async () => {
    using box = smallSandbox();
    box.environment.XDG_CACHE_HOME = join(profiles, "../cache");
    configure(
      box,
      `MEMORY=64M\nPORT=\nDISKS=(VIRT=16M VIRT=200M)\nPROFILES="${profiles}"\nRESCUE_MEMORY=512M\nRESCUE_CORES=1\n`,
    );
    await box.ok(["create", "G"]);
    box.write("look.job", `sfdisk --dump /dev/vdb 2>/dev/null >"$OUTDIR/table"\n`);
    box.write(
      "fill.job",
      `printf 'label: gpt\\n, +\\n' | sfdisk -q /dev/vdb; modprobe dm_crypt; export DM_DISABLE_UDEV=1
printf 'a secret' >/tmp/key
cryptsetup -q luksFormat --type luks2 --pbkdf argon2id --pbkdf-memory 16384 --pbkdf-force-iterations 4 /dev/vdb1 /tmp/key
cryptsetup open --key-file /tmp/key /dev/vdb1 new; mkfs.ext4 -q /dev/mapper/new
`,
    );
    await box.ok(["job", "fill"]);
    await box.ok(["job", "look"]);
    const before = box.read(".work/.out/table");
    const refused = await box.vm(["disk", "resize", "1", "+200M", "--fs"]);
    expect(refused.status).toBe(1);
    expect(refused.stdout + refused.stderr).toMatch(
      /vdb1 \(LUKS\) is not open: .* nothing on the disk is changed/,
    );
    await box.ok(["job", "look"]);
    expect(box.read(".work/.out/table").replaceAll(/^last-lba:.*\n/gm, "")).toBe(
      before.replaceAll(/^last-lba:.*\n/gm, ""),
    );
    const shown = await typePassphrase(box, "disk resize 1 400M --fs", "a secret");
    expect(shown).toMatch(/exec: resize2fs \/dev\/mapper\/luks-/);
    await box.ok(["job", "look"]);
    expect(box.read(".work/.out/table")).not.toBe(before);
  });
});

/** Packs what the script needs in a guest: programs of this host with their libraries. */
const PACK = `
PATH=$PATH:/usr/sbin:/sbin
mkdir -p root/usr/sbin
for program in qemu-ga bash sfdisk partx blkid blockdev findmnt lsblk mke2fs e2fsck resize2fs; do
  path=$(command -v $program)
  cp -L "$path" root/usr/sbin/
  ldd "$path" | grep -o '/[^ ]*' | xargs -I{} cp -L --parents {} root/
done
tar -C root --owner=0 --group=0 -cf root.tar .
rm -r root
`;

/** ext4 on the last of two GPT partitions, mounted, with a file. busybox has a mke2fs of its own. */
const GUEST = `
tar -C / -xf /in/root.tar
export PATH=/usr/sbin:$PATH
ln -s /proc/self/fd /dev/fd
mkdir -p /fs /run
printf 'label: gpt\n, 4M\n, +\n' | /usr/sbin/sfdisk -q /dev/vdb
/usr/sbin/mke2fs -q -t ext4 /dev/vdb2
mount -t ext4 /dev/vdb2 /fs
head -c 3000000 /dev/urandom >/fs/data; sha256sum </fs/data >/fs/sum; sync
qemu-ga -d -m virtio-serial -p /dev/$(ls /sys/class/virtio-ports) -t /run -f /run/ga.pid
echo READY
while :; do sleep 1; done
`;

suiteInTurn(0)(
  "disk resize --fs in a running guest",
  () => {
    const box = smallSandbox();

    beforeAll(async () => {
      const { linuxIso } = await guests();
      configure(box, "MEMORY=384M\nCORES=1\nPORT=\nDISKS=(VIRT=16M VIRT=64M)\n");
      await shell(PACK, box.host);
      box.write("guest.sh", GUEST);
      await box.ok(["create", "G", linuxIso]);
      await box.ok(["run", "--detach"]);
      await until("the guest", () => box.console().includes("READY"));
      await until("the agent", async () => (await box.vm(["exec", "true"])).status === 0);
    });
    afterAll(() => box[Symbol.dispose]());

    const sizeMiB = async (): Promise<number> =>
      Number((await box.ok(["exec", "sh", "-c", "df -m /fs | awk 'END { print $2 }'"])).stdout);

    test("a mounted filesystem grows with its partition, and keeps its data", async () => {
      expect(await sizeMiB()).toBeLessThan(64);
      await box.ok(["disk", "resize", "1", "+64M", "--fs"]);
      expect(await sizeMiB()).toBeGreaterThan(100);
      await box.ok(["exec", "sh", "-c", "sha256sum </fs/data | cmp - /fs/sum"]);
      // Once more: there is nothing to do.
      await box.ok(["disk", "resize", "1", "128M", "--fs"]);
    });

    test("a disk without a filesystem is refused", async () => {
      expectError(
        await box.vm(["disk", "resize", "0", "+16M", "--fs"]),
        1,
        /neither partitions nor a filesystem/,
      );
    });
  },
  ["qemu-ga", "sfdisk", "mke2fs", "resize2fs"],
);
