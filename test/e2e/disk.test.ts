/** Disks and CDs are added, removed and changed while the guest runs, and are at the same places after the next start. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { appendFileSync, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Guests } from "../guests/build.ts";
import { guests, until, type Sandbox } from "./harness.ts";
import { configure, expectError, sampled, shell, smallSandbox, suite, testInTurn } from "./tools.ts";

/**
 * Prints the disks whenever they change: serial number, path in /sys, size, first bytes. Marks empty ones. Then the first
 * bytes of the CD's volume name.
 */
const SCRIPT = `
modprobe -a virtio_blk virtio_scsi nvme sd_mod sr_mod
look() {
  for b in /sys/block/*; do
    p=$(readlink -f $b/device)
    serial=$(cat $b/serial 2>/dev/null || cat $b/device/serial 2>/dev/null || tail -c +5 $b/device/vpd_pg80 2>/dev/null)
    serial=$(echo $serial) dev=/dev/\${b##*/}
    case $serial in disk-[1-9]*)
      head=$(head -c 6 $dev 2>/dev/null | tr -d '\\0')
      [ "$head" ] || { echo -n $serial >$dev; sync; continue; }
      [ -n "$(cat $b/size)" ] || continue
      echo "$serial $(($(cat $b/size) * 512)) $head \${p#/sys/devices/}" | sed 's,/host[0-9]*/,/host/,; s,/ata[0-9]*/,/ata/,; s,target[0-9]*:,target,; s,/[0-9]*:0:,/0:,; s,virtio[0-9]*,virtio,; s,nvme[0-9]*,nvme,g' ;;
    esac
  done
  echo "cd $(dd if=/dev/sr0 bs=2048 skip=16 count=1 2>/dev/null | tail -c +41 | head -c 8)"
}
last= n=0
while :; do
  now=$(look)
  [ "$now" = "$last" ] || { n=$((n + 1)); echo "STATE $n"; echo "$now"; echo "END $n"; last=$now; }
  sleep 1
done
`;

/** The script in an initramfs of its own, behind that of the kernel. */
async function buildInitrd(box: Sandbox, { initrd }: Guests): Promise<string> {
  const path = join(box.top, "initrd.img");
  mkdirSync(join(box.top, "root/in"), { recursive: true });
  writeFileSync(join(box.top, "root/in/guest.sh"), SCRIPT);
  cpSync(initrd, path);
  appendFileSync(path, Buffer.alloc(-readFileSync(path).length & 3));
  await shell(`cd ${box.top}/root && find . | cpio -o -H newc --quiet | gzip >>${path}`, box.top);
  return path;
}

interface Seen {
  serial: string;
  bytes: number;
  head: string;
  path: string;
}

/** What the guest has printed last. */
function look(box: Sandbox): { disks: Seen[]; cd: string } | undefined {
  const text = existsSync(join(box.work, "console.log")) ? box.console() : "";
  const last = [...text.matchAll(/STATE (\d+)\n([^]*?)END \1\n/g)].at(-1)?.[2];
  if (last === undefined) return undefined;
  const lines = last.trim().split(/\s*\n/);
  const disks = lines
    .filter((line) => line.startsWith("disk-"))
    .map((line): Seen => {
      const [serial = "", bytes, head = "", path = ""] = line.split(" ");
      return { serial, bytes: Number(bytes), head, path };
    })
    // The kernel names them in the order in which they answer.
    .toSorted((a, b) => (a.serial < b.serial ? -1 : 1));
  return { disks, cd: /^cd ?(.*)$/m.exec(last)?.[1]?.trim() ?? "" };
}

/** Waits until the guest sees these disks, with these sizes in MiB. */
async function seen(box: Sandbox, wanted: Record<string, number>): Promise<Seen[]> {
  const isSeen = ({ disks }: { disks: Seen[] }): boolean =>
    disks.length === Object.keys(wanted).length &&
    disks.every(({ serial, bytes, head }) => bytes === wanted[serial]! << 20 && head === serial);
  return until(`the guest sees ${JSON.stringify(wanted)}`, () => {
    const now = look(box);
    return now && isSeen(now) && now.disks;
  });
}

const nodesOf = async (box: Sandbox): Promise<string[]> => {
  const disks = JSON.parse((await box.ok(["disk", "list", "--json"])).stdout) as {
    number: number;
    attached: boolean;
  }[];
  return disks.map(({ number, attached }) => `${number} ${attached}`);
};

const MACHINES: [board: string, bus: string][] = [
  ["pc", "VIRT"],
  ["q35", "SCSI"],
  ["pc", "NVME"],
  ["q35", "VIRT"],
  ["pc", "SCSI"],
  ["q35", "NVME"],
];

suite("while the guest runs", () => {
  let iso: Guests;

  beforeAll(async () => {
    iso = await guests();
  });

  describe.each(sampled(MACHINES, 0))("on %s disks on %s", (board, bus) => {
    let box: Sandbox;
    let places: string[];

    beforeAll(async () => {
      box = smallSandbox();
      const uefi = board === "q35" ? "UEFI=1\n" : "";
      configure(
        box,
        `MEMORY=512M\nCORES=1\nPORT=\nSHARES=()\nDISKS=(AHCI=16M)\nSNAPSHOT_FORMAT=qcow2\n${uefi}`,
      );
      await box.ok(["create", "L"]);
      const initrd = await buildInitrd(box, iso);
      box.write("vm.defaults", `-kernel ${iso.kernel} -initrd ${initrd} -append "${iso.append}"\n`);
      await box.ok(["run", "--detach"]);
      await seen(box, {});
    });
    afterAll(() => box?.[Symbol.dispose]());

    test("are attached at once", async () => {
      await box.ok(["disk", "add", `${bus}=8M`]);
      await seen(box, { "disk-1": 8 });
      await box.ok(["disk", "add", `${bus}=9M`]);
      const disks = await seen(box, { "disk-1": 8, "disk-2": 9 });
      places = disks.map(({ path }) => path);
      expect(await nodesOf(box)).toEqual(["0 true", "1 true", "2 true"]);
    });

    test("on a bus without hot plug, from the next run on: status tells", async () => {
      await box.ok(["disk", "add", "AHCI=1M"]);
      const { disks } = JSON.parse((await box.ok(["status", "--json"])).stdout) as {
        disks: { file: string; attached: boolean }[];
      };
      expect(disks.map(({ file, attached }) => `${file} ${attached}`)).toEqual([
        "disk-0.img true",
        "disk-1.img true",
        "disk-2.img true",
        "disk-3.img false",
      ]);
      await box.ok(["disk", "remove", "3", "--delete"]);
    });

    test("are in a live backup", async () => {
      await box.ok(["backup"]);
      expect((await box.ok(["backup"])).stderr).toContain("incremental on S0");
    });

    test("grow", async () => {
      // qemu 7.2 cannot resize an NVMe disk that is attached.
      if (bus === "NVME")
        expectError(await box.vm(["disk", "resize", "2", "+3M"]), 75, /while the guest uses it/);
      else {
        await box.ok(["disk", "resize", "2", "+3M"]);
        await seen(box, { "disk-1": 8, "disk-2": 12 });
      }
      await box.ok(["backup"]);
    });

    test("are removed", async () => {
      await box.ok(["disk", "remove", "2", "--delete"]);
      await seen(box, { "disk-1": 8 });
      expect(await nodesOf(box)).toEqual(["0 true", "1 true"]);
      await box.ok(["backup"]);
      await box.ok(["verify", "--all"]);
    });

    test("the CD is changed", async () => {
      for (const [name, path] of [
        ["LINUX", iso.linuxIso],
        ["HALT", iso.haltIso],
      ] as const) {
        await box.ok(["cd", path]);
        await until(`the guest sees the CD ${name}`, () => look(box)?.cd.startsWith(name));
      }
      await box.ok(["cd", "--eject"]);
      await until("the guest sees no CD", () => look(box)?.cd === "");
      await box.ok(["cd", iso.linuxIso]);
      await until("the guest sees the CD again", () => look(box)?.cd.startsWith("LINUX"));
    });

    test("are at the same places after the next start, and in restored snapshots", async () => {
      await box.ok(["stop"]);
      await box.ok(["run", "--detach"]);
      const [first] = await seen(box, { "disk-1": 8 });
      expect(first!.path).toBe(places[0]!);
      await until("the guest sees the CD as before", () => look(box)?.cd.startsWith("LINUX"));
      await box.ok(["stop"]);
      for (const [name, size] of [
        ["S1", 9],
        ["S2", bus === "NVME" ? 9 : 12],
      ] as const) {
        await box.ok(["restore", name]);
        await box.ok(["run", "--detach"]);
        const disks = await seen(box, { "disk-1": 8, "disk-2": size });
        expect(disks.map(({ path }) => path)).toEqual(places);
        await box.ok(["stop"]);
      }
    });

    testInTurn(1, 4)("a paused guest keeps its disks (75)", async () => {
      await box.ok(["restore", "S3"]);
      await box.ok(["run", "--detach"]);
      await seen(box, { "disk-1": 8 });
      await box.ok(["pause"]);
      expectError(await box.vm(["disk", "remove", "1", "--delete"]), 75, /paused/);
      await box.ok(["resume"]);
      await box.ok(["stop"]);
    });
  });
});
