import type { Nic } from "../../machine/types.ts";
import { placed, placeOfNic, type Placed } from "../layout.ts";

/** A network card on qemu's user-mode network. */
export function buildNicArgs(machine: Placed, { number, mac, forwards }: Nic): string[] {
  const id = `net${number - 1}`;
  return [
    "-netdev",
    ["user", `id=${id}`, ...forwards].join(","),
    "-device",
    `virtio-net-pci,netdev=${id},id=${id}-dev${mac === undefined ? "" : `,mac=${mac}`}${placed(placeOfNic(machine, number))}`,
  ];
}
