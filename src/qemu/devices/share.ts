import type { Share } from "../../machine/types.ts";
import { escapeCommas } from "../text.ts";

/** Shared directories by 9p; the guest mounts them by tag. */
export function buildShareArgs(shares: readonly Share[]): string[] {
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
    `virtio-9p-pci,fsdev=fs${index},mount_tag=${escapeCommas(share.tag)}`,
  ]);
}
