import { plain } from "../lib/text.ts";
import { realPath } from "../lib/read-file.ts";
import type { Machine } from "../machine/types.ts";
import { findHelper } from "../qemu/argv.ts";

/** Why a machine cannot have a root of its own; `helper`: nor do without gaining privileges. */
export interface Loose {
  reason: string;
  helper: boolean;
}

/** Options of qemu whose values describe the machine. All others may name files, programs or sockets of the host. */
const INNER =
  /^--?(accel|action|boot|cpu|device|enable-kvm|global|icount|k|m|M|machine|msg|name|no-acpi|no-fd-bootchk|no-hpet|no-reboot|no-shutdown|no-user-config|nodefaults|nographic|numa|object|overcommit|prom-env|rtc|S|sandbox|set|smbios|smp|uuid|vga|w|watchdog|watchdog-action|win2k-hack)$/;

/** Values of these that name a file, a device or a network of the host, or play its sound. */
const OUTER =
  /\/|\b(can-host|ccid|cryptodev|epc|file|filter-dump|host|host_device|input-linux|ivshmem|sev|tdx|u2f|usb-host|usb-mtp|vfio|vhost|xen)|\b(dir|dtb|dumpdtb|evdev|filename|firmware|hidraw|hostdevice|initrd|kernel|rootdir|splash)=|^(ac97|adlib|cs4231a|es1370|gus|hda-|intel-hda|sb16|usb-audio|virtio-(sound|snd))/i;

/** @returns undefined for a machine whose files are all known */
export function findLoose({ extraArgs, shares }: Pick<Machine, "extraArgs" | "shares">): Loose | undefined {
  const helper = findHelper(extraArgs);
  if (helper !== undefined)
    return { reason: `further argument of qemu that starts a program: ${plain(helper)}`, helper: true };
  const outer = extraArgs.find((word) => (word.startsWith("-") ? !INNER.test(word) : OUTER.test(word)));
  if (outer !== undefined)
    return { reason: `further argument of qemu that may reach outside: ${plain(outer)}`, helper: false };
  const whole = shares.find(({ path }) => realPath(path) === "/");
  return whole && { reason: `the share ${plain(whole.tag)} is the whole host`, helper: false };
}
