/** The guest's view: a small Linux checks its disks, shares, network and firmware from inside. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Guests } from "../guests/build.ts";
import { DISK_BUSES } from "../../src/machine/types.ts";
import { guests, until, type Sandbox } from "./harness.ts";
import {
  allocated,
  ask,
  configure,
  freePort,
  seed,
  shell,
  smallSandbox,
  startUntil,
  suite,
  testInTurn,
} from "./tools.ts";

let iso: Guests;

const MOUNT = "mount -t 9p -o trans=virtio,version=9p2000.L,msize=104857600,cache=none";
/** Linux asks no USB disk for its serial number, nor whether it can discard (drivers/usb/storage/scsiglue.c). */
const KNOWING = DISK_BUSES.filter((bus) => bus !== "USB");
/** Each day one of them has the filesystem, and one the zeroes. */
const BUSES = rotate(KNOWING, seed % KNOWING.length);

function rotate<T>(items: readonly T[], by: number): T[] {
  return [...items.slice(by), ...items.slice(0, by)];
}

function linuxSandbox(disks: string): Sandbox {
  const box = smallSandbox();
  configure(box, `MEMORY=512M\nCORES=1\nPORT=\nDISKS=( ${disks} )\n`);
  return box;
}

/** Shell functions for guests: `section NAME` starts a part of the output, `disk N` finds a disk by its serial number. */
const PRELUDE = `
section() { echo "== $1"; }
serial() { cat /sys/block/$1/serial /sys/block/$1/device/serial 2>/dev/null || tail -c +5 /sys/block/$1/device/vpd_pg80; }
disk() { for b in $(ls /sys/block); do [ "$(serial $b | tr -d ' \\0')" = disk-$1 ] && echo /dev/$b; done; }
`;

/** The lines of one section of a guest's output. */
function section(text: string, name: string): string[] {
  const from = text.indexOf(`== ${name}\n`);
  if (from < 0) return [`no section ${name} in:`, text];
  return text.slice(from).split("\n== ")[0]!.trim().split("\n").slice(1);
}

suite("inside a guest", () => {
  beforeAll(async () => {
    iso = await guests();
  });

  describe("of four disks and several shares", () => {
    const shares: Record<string, string> = {
      commas: "a,b,,c,readonly=off",
      quotes: `it's "quoted" \\ $HOME \`id\``,
      cyrillic: "Общая папка №1",
      newline: "two\nlines",
    };
    let box: Sandbox;
    let shown: string;

    beforeAll(async () => {
      box = linuxSandbox(BUSES.map((bus, index) => `${bus}=${64 + 16 * index}M`).join(" "));
      const options = Object.entries(shares).map(([tag, name]) => {
        mkdirSync(join(box.top, name));
        writeFileSync(join(box.top, name, `file of ${tag}`), "");
        return `--share=${tag}:rw:${join(box.top, name)}`;
      });
      const script = [
        PRELUDE,
        "section disks",
        'for b in $(ls /sys/block); do echo "$b $(serial $b) $(($(cat /sys/block/$b/size) / 2048))"; done',
        "section read-only",
        "touch /in/x 2>&1; echo $?; mount -o remount,rw /in; touch /in/x 2>&1; echo $?",
        "section writable",
        `mkdir /out; ${MOUNT} out /out; echo from the guest >/out/file; chmod 4755 /out/file; ln -s /etc/shadow /out/link; ls -1 /out`,
        ...Object.keys(shares).map(
          (tag) =>
            `section ${tag}\nmkdir /${tag}; ${MOUNT} ${tag} /${tag} && ls /${tag}; touch /${tag}/new; umount /${tag}`,
        ),
        "section tags",
        "cat /sys/bus/virtio/drivers/9pnet_virtio/*/mount_tag | tr '\\0' '\\n' | sort",
        "section random",
        "cat /sys/class/misc/hw_random/rng_current; dd if=/dev/hwrng bs=16 count=1 2>/dev/null | wc -c",
        "section devices",
        "cat /sys/bus/pci/devices/*/class; ls /sys/firmware | grep efi || echo no efi",
        "section dmi",
        "cd /sys/class/dmi/id; cat sys_vendor product_serial chassis_asset_tag",
        "section end",
      ];
      box.write("guest.sh", script.join("\n"));
      const dmi = ["--smbios=type=1,manufacturer=ACME,, Inc.,serial=s 7", "--smbios=type=3,asset=$HOME"];
      await box.ok([...options, ...dmi, "create", "L", iso.linuxIso]);
      await box.ok(["run"]);
      shown = box.console();
    });
    afterAll(() => box?.[Symbol.dispose]());

    test("serial numbers differ, sizes are as requested", () => {
      const found = section(shown, "disks").filter((line) => line.includes("disk-"));
      expect(found.map((line) => line.split(/\s+/).slice(1).join(" ")).toSorted()).toEqual([
        "disk-0 64",
        "disk-1 80",
        "disk-2 96",
        "disk-3 112",
      ]);
      const kinds = found.map((line) => line.split(/\s+/)[0]!.replace(/[a-z]$/, ""));
      expect(kinds.toSorted()).toEqual(["nvme0n1", "sd", "sd", "vd"]);
    });

    test("the share `in` is HOSTDIR, read-only", () => {
      const lines = section(shown, "read-only");
      expect(lines.join("\n")).toMatch(/Read-only file system/);
      expect(lines.filter((line) => line === "0")).toEqual([]);
      expect(existsSync(box.path("x"))).toBe(false);
    });

    test("files that a guest writes to `out` are in .out on the host, without symlinks and setuid files", async () => {
      expect(section(shown, "writable")).toEqual(["file", "link"]);
      expect(readFileSync(box.path(".work/.out/file"), "utf8")).toBe("from the guest\n");
      expect(await shell("find . -perm /7000 -o -type l", box.path(".work/.out"))).toBe("");
    });

    test.each(Object.entries(shares))("the share %s (%j) is visible, and writable", (tag, name) => {
      expect(section(shown, tag)).toEqual([`file of ${tag}`]);
      expect(existsSync(join(box.top, name, "new"))).toBe(true);
    });

    test("SMBIOS fields are those of the settings", () => {
      expect(section(shown, "dmi")).toEqual(["ACME, Inc.", "s 7", "$HOME"]);
    });

    test("has no unrequested share", () => {
      expect(section(shown, "tags")).toEqual([...Object.keys(shares), "in", "out"].toSorted());
    });

    test("the random source works", () => {
      expect(section(shown, "random")).toEqual(["virtio_rng.0", "16"]);
    });

    test("has a graphics card, a tablet's USB controller, a network card; and BIOS", () => {
      const lines = section(shown, "devices");
      expect(lines).toEqual(expect.arrayContaining(["0x030000", "0x0c0330", "0x020000", "no efi"]));
    });
  });

  testInTurn(0, 4)(
    "TRIM, fstrim and written zeroes shrink disks on the host; a forwarded port is reachable",
    async () => {
      using box = linuxSandbox(BUSES.map((bus) => `${bus}=64M`).join(" "));
      box.write(
        "guest.sh",
        `${PRELUDE}
       ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
       mkdir /www; echo hello from the guest >/www/index.html; httpd -p 80 -h /www
       fill() { dd if=/dev/urandom of=$1 bs=1M count=32 conv=fsync 2>/dev/null; }
       mke2fs -F $(disk 3) >/dev/null 2>&1; mount -t ext4 $(disk 3) /mnt
       for file in $(disk 0) $(disk 1) $(disk 2) /mnt/file; do fill $file; done
       echo WRITTEN
       until [ -e /in/go-on ]; do usleep 100000; done
       for n in 0 1; do blkdiscard -o 0 -l $((32 << 20)) $(disk $n) || echo cannot discard disk $n; done
       dd if=/dev/zero of=$(disk 2) bs=1M count=32 conv=fsync 2>/dev/null
       rm /mnt/file; sync; fstrim /mnt; umount /mnt
       sync; echo DONE`,
      );
      const port = await freePort();
      await box.ok(["-f", `tcp:127.0.0.1:${port}-10.0.2.15:80`, "create", "L", iso.linuxIso]);
      const run = await startUntil(box, ["run"], "WRITTEN");
      const sizes = (): number[] => [0, 1, 2, 3].map((n) => allocated(box.path(".work", `disk-${n}.img`)));
      const answer = await until("an answer by HTTP", () => ask(port, "GET / HTTP/1.0\r\n\r\n"));
      expect(answer).toContain("hello from the guest");
      for (const size of sizes()) expect(size).toBeGreaterThan(32 << 20);
      box.write("go-on", "");
      expect((await run.done).status).toBe(0);
      expect(box.console()).not.toContain("cannot discard");
      expect(box.console()).toContain("DONE");
      for (const size of sizes()) expect(size).toBeLessThan(8 << 20);
    },
  );

  testInTurn(2, 4)("UEFI: the same guest, booted by OVMF, with more cores, sockets and memory", async () => {
    using box = linuxSandbox("NVME=64M");
    box.write(
      "guest.sh",
      "[ -d /sys/firmware/efi ] && echo EFI; cat /in/note; grep -c ^processor /proc/cpuinfo; grep MemTotal /proc/meminfo\n",
    );
    box.write("note", "read from the share\n");
    await box.ok(["-u", "-c2", "-S2", "-m", "700M", "@create", "L", iso.linuxIso, "@run"]);
    const [, cpus, kib] = /EFI\nread from the share\n(\d+)\nMemTotal:\s+(\d+) kB/.exec(box.console()) ?? [];
    expect(cpus).toBe("4");
    expect(Number(kib)).toBeGreaterThan(600_000);
  });
});
