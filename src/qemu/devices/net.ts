import type { Machine } from "../../machine/types.ts";

/** The first network card, on qemu's user-mode network. */
export function buildNetArgs(network: Machine["network"]): string[] {
  if (!network) return [];
  return [
    "-netdev",
    ["user", "id=net0", ...network.forwards].join(","),
    "-device",
    "virtio-net-pci,netdev=net0,id=net0-dev",
  ];
}
