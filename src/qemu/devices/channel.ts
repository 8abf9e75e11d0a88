import type { Machine } from "../../machine/types.ts";
import { portId } from "../../qmp/events.ts";
import { placed, placeOf, type Placed } from "../layout.ts";
import { escapeCommas, socketChardev } from "../text.ts";

/** Named virtio-serial ports: `/dev/virtio-ports/NAME` in the guest. */
export function buildChannelArgs(machine: Placed & Pick<Machine, "channels">): string[] {
  const { channels } = machine;
  if (channels.length === 0) return [];
  return [
    "-device",
    `virtio-serial-pci,id=channels0${placed(placeOf(machine, "channels"))}`,
    ...channels.flatMap(({ name, socket }, index) => [
      "-chardev",
      socketChardev(`channel${index}`, socket),
      "-device",
      `virtserialport,id=${portId(index)},bus=channels0.0,chardev=channel${index},name=${escapeCommas(name)}`,
    ]),
  ];
}
