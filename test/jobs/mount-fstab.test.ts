import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync } from "node:fs";
import { join } from "node:path";
import { exec } from "../../src/process/exec.ts";
import { Temp } from "../fixtures/temp.ts";
import { ROOT } from "./hook.ts";

setDefaultTimeout(30_000);

/** In a mount namespace: /dev has the machine's disks, the root is mounted from one of them, and mount does nothing. */
const START = String.raw`
top=$1 root=$2; shift 2
mount --make-rprivate / && mkdir "$top/dev" "$top/system" && mount -t tmpfs none "$top/dev" || exit 99
for name; do mknod "$top/dev/$name" b 7 250 || exit 99; done
mknod "$top/dev/null" c 1 3; mount -t tmpfs "/dev/$root" "$top/system" && mount --bind "$top/dev" /dev || exit 99
mkdir "$top/system/boot" "$top/system/home"
PATH=$top/bin:$PATH bash "$top/mount-fstab" "$top/fstab" "$top/system"
`;

/** Mounts by an fstab in a machine with these devices. @returns the mounts below the root, the status and stderr */
async function mountBy(fstab: string, root: string, devices: string): Promise<[string[], number, string]> {
  using temp = new Temp();
  temp.write("fstab", fstab);
  temp.write("mount-fstab", await Bun.file(join(ROOT, "scripts/rescue/mount-fstab")).text());
  for (const [name, text] of [
    ["mount", "#!/bin/sh\n"],
    ["blkid", "#!/bin/sh\nexit 2\n"],
  ] as const)
    chmodSync(temp.write(join("bin", name), text), 0o700);
  const done = await exec(
    ["unshare", "-m", "bash", "-c", START, "machine", temp.top, root, ...devices.split(" ")],
    { anyStatus: true },
  );
  if (done.status === 99) throw new Error(`no namespace: ${done.stderr}`);
  const mounted = done.stdout.trim().replaceAll(`${temp.top}/system`, "").split("\n").filter(Boolean);
  return [mounted, done.status ?? -1, done.stderr];
}

describe.skipIf(process.getuid!() !== 0)("mount-fstab finds renamed disks (needs root):", () => {
  test.each<[title: string, fstab: string, root: string, devices: string, mounted: string[], status: number]>(
    [
      ["hda is sda", "/dev/hda2 /\n/dev/hda1 /boot", "sda2", "sda1 sda2", ["/dev/sda1 -> /boot"], 0],
      [
        "sda is nvme",
        "/dev/sda2 /\n/dev/sda1 /boot",
        "nvme0n1p2",
        "nvme0n1p1 nvme0n1p2",
        ["/dev/nvme0n1p1 -> /boot"],
        0,
      ],
      [
        "nvme is vda",
        "/dev/nvme0n1p3 /\n/dev/nvme0n1p12 /home",
        "vda3",
        "vda12 vda3",
        ["/dev/vda12 -> /home"],
        0,
      ],
      ["the same", "/dev/sda2 /\n/dev/sdb1 /home", "sda2", "sda2 sdb1", ["/dev/sdb1 -> /home"], 0],
      // There is an sda1, but of another disk.
      ["exchanged", "/dev/sda2 /\n/dev/sda1 /boot", "sdb2", "sda1 sdb1 sdb2", ["/dev/sdb1 -> /boot"], 0],
      ["a further disk with an unknown name", "/dev/sda2 /\n/dev/sdb1 /home", "vda2", "vda2 sdb1", [], 1],
      ["its partitions have other numbers", "/dev/sda2 /\n/dev/sda1 /boot", "vda3", "vda1 vda3 sda1", [], 1],
      ["it does not exist", "/dev/sda2 /\n/dev/sda3 /home", "vda2", "vda2", [], 1],
      [
        "the root has another kind of name",
        "LABEL=root /\n/dev/sda1 /boot",
        "vda2",
        "sda1 vda2",
        ["/dev/sda1 -> /boot"],
        0,
      ],
      ["it is optional", "/dev/sda2 /\n/dev/sdb1 /home ext4 nofail", "vda2", "vda2", [], 0],
    ],
  )("%s", async (_title, fstab, root, devices, mounted, status) => {
    const [found, code, errors] = await mountBy(`${fstab}\n`, root, devices);
    expect([found, code]).toEqual([mounted, status]);
    if (status !== 0) expect(errors).toMatch(/mount-fstab: \/(home|boot): cannot find \/dev\/sd/);
  });
});
