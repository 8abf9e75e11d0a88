import type { Share } from "../../machine/types.ts";
import { escapeCommas } from "../text.ts";

/** Shared folders by 9p; the guest mounts them by tag. */
export function buildShareArgs(shares: readonly Share[]): string[] {
  return shares.flatMap((share, index) => [
    "-fsdev",
    [
      `local,id=fs${index}`,
      `path=${escapeCommas(share.path)}`,
      `security_model=${share.security}`,
      `readonly=${share.writable ? "off" : "on"}`,
      // A folder may hold mounts of other file systems; without this their inode numbers could collide.
      "multidevs=remap",
    ].join(","),
    "-device",
    `virtio-9p-pci,fsdev=fs${index},mount_tag=${escapeCommas(share.tag)}`,
  ]);
}
