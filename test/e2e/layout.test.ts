/** Layout 1: what a guest sees of its hardware does not depend on a CD, a display, shares and further disks. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Guests } from "../guests/build.ts";
import { guests, type Sandbox } from "./harness.ts";
import { buildInitrd } from "./linux-initrd.ts";
import { configure, sampled, smallSandbox, suite, turnsOf } from "./tools.ts";

/**
 * Prints each PCI device's place and class, each card's address and name by systemd's rules (systemd.net-naming-scheme(7),
 * slot, else path), and the path of each disk.
 */
const SCRIPT = `
echo SYS
cd /sys/bus/pci/devices
for d in *; do echo "pci $d $(cat $d/class)"; done
for i in */virtio*/net/*; do
  d=\${i%%/*}
  name=path-$d
  for s in /sys/bus/pci/slots/*; do
    [ "$(cat $s/address 2>/dev/null)" = "\${d%.*}" ] && name=ens\${s##*/}
  done
  echo "net $name $(cat $i/address)"
done
for b in /sys/block/*; do
  p=$(readlink -f $b/device)
  serial=$(cat $b/serial 2>/dev/null || cat $b/device/serial 2>/dev/null || tail -c +5 $b/device/vpd_pg80 2>/dev/null)
  case $serial in disk-*) echo "disk $serial \${p#/sys/devices/}" | sed 's,/host[0-9]*/,/host/,; s,/ata[0-9]*/,/ata/,; s,target[0-9]*:,target,; s,/[0-9]*:0:,/0:,; s,virtio[0-9]*,virtio,; s,nvme[0-9]*,nvme,g' ;; esac
done
echo END
`;

/** What may be added to a machine. */
const ADDITIONS: Record<string, (box: Sandbox, iso: string) => string[]> = {
  "a CD": (_box, iso) => ["run", iso],
  "a display": () => ["--port=5999", "run"],
  shares: (box) => Array.from({ length: 5 }, (_, index) => `--share=s${index}:${box.top}`).concat("run"),
  "further disks": (box) => [
    ...["VIRT", "NVME", "SCSI", "USB"].map((bus, index) => `--image=${bus}=${extraDisk(box, index)}`),
    "run",
  ],
};

function extraDisk(box: Sandbox, index: number): string {
  const path = join(box.top, `extra-${index}.img`);
  writeFileSync(path, Buffer.alloc(1 << 20));
  return path;
}

/** Runs the guest. @returns what it prints */
async function look(box: Sandbox, options: string[]): Promise<string[]> {
  await box.ok(options);
  const text = box.console();
  const shown = /SYS\n([^]*?)END\n/.exec(text)?.[1];
  if (shown === undefined) throw new Error(`no report of the guest in:\n${text}`);
  return shown.trim().split(/\s*\n/);
}

suite("a guest sees", () => {
  let iso: Guests;

  beforeAll(async () => {
    iso = await guests();
  });

  describe.each(sampled(["pc", "q35"], 0, 1, turnsOf(4)))("on %s", (board) => {
    describe.each(sampled(["VIRT", "AHCI", "SCSI", "NVME"], 0))("with a disk on %s", (bus) => {
      let box: Sandbox;
      let plain: string[];

      beforeAll(async () => {
        box = smallSandbox();
        const uefi = board === "q35" ? "UEFI=1\n" : "";
        configure(box, `MEMORY=512M\nCORES=1\nPORT=\nSHARES=()\nDISKS=(${bus}=16M)\n${uefi}`);
        await box.ok(["create", "L"]);
        const initrd = await buildInitrd(box, iso, SCRIPT);
        box.write("vm.defaults", `-kernel ${iso.kernel} -initrd ${initrd} -append "${iso.append}"\n`);
        plain = await look(box, ["run"]);
      });
      afterAll(() => box?.[Symbol.dispose]());

      test("the first card in its slot, with the VM's own address", async () => {
        const card = plain.find((line) => line.startsWith("net "))!;
        const { nics } = JSON.parse((await box.ok(["status", "--json"])).stdout) as {
          nics: { mac: string }[];
        };
        expect(card).toBe(`net ${board === "pc" ? "ens5" : "path-0000:00:04.0"} ${nics[0]!.mac}`);
        expect(plain).toContainEqual(
          expect.stringMatching(board === "pc" ? /^pci 0000:00:05\.0 0x02/ : /^pci 0000:00:04\.0 0x02/),
        );
      });

      test.each(sampled(Object.keys(ADDITIONS), 1))(
        "all devices at the same places with %s",
        async (what) => {
          const more = await look(box, ADDITIONS[what]!(box, iso.haltIso));
          expect(plain.filter((line) => !more.includes(line))).toEqual([]);
          if (what !== "a CD") expect(more.length).toBeGreaterThan(plain.length);
        },
      );
    });
  });
});
