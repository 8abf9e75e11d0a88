import type { Machine } from "../../machine/types.ts";
import { placed, placeOfShare, type Placed } from "../layout.ts";
import { escapeCommas } from "../text.ts";

/** Shared directories by 9p; the guest mounts them by tag. */
export function buildShareArgs(machine: Placed & Pick<Machine, "shares">): string[] {
  const { shares } = machine;
  return shares.flatMap((share, index) => [
    "-fsdev",
    [
      `local,id=fs${index}`,
      `path=${escapeCommas(share.path)}`,
      `security_model=${share.security}`,
      `readonly=${share.writable ? "off" : "on"}`,
      // Inode numbers of several filesystems in one share would collide otherwise.
      "multidevs=remap",
    ].join(","),
    "-device",
    `virtio-9p-pci,fsdev=fs${index},mount_tag=${escapeCommas(share.tag)}${placed(placeOfShare(machine, index, shares.length))}`,
  ]);
}
