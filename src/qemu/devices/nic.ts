import type { Machine, Nic } from "../../machine/types.ts";
import type { QmpCommand } from "../../qmp/commands.ts";
import { placeOfNic, type Placed } from "../layout.ts";
import { escapeCommas } from "../text.ts";

const netdevOf = (number: number): string => `net${number - 1}`;
export const nicDevice = (number: number): string => `${netdevOf(number)}-dev`;

/** Properties of `-netdev`, without port forwards, and of `-device`; of `netdev_add` and `device_add` as well. */
const buildNic = (machine: Placed, { number, mac }: Nic) => ({
  netdev: { type: "user", id: netdevOf(number) } as const,
  device: {
    driver: "virtio-net-pci",
    netdev: netdevOf(number),
    id: nicDevice(number),
    ...(mac !== undefined && { mac }),
    ...placeOfNic(machine, number),
  },
});

/** Behind all disks and CDs, also those that are added later. */
const LAST_BOOTINDEX = 1000;

type NicMachine = Placed & Pick<Machine, "nics" | "netboot">;

/** Network boot by the first card. */
function buildNetboot({ nics, netboot }: NicMachine, { number }: Nic) {
  if (nics[0]?.number !== number) return { options: [], bootindex: {} };
  const { order, directory, file } = netboot;
  return {
    options: [
      ...(directory === undefined ? [] : [`tftp=${escapeCommas(directory)}`]),
      ...(file === undefined ? [] : [`bootfile=${escapeCommas(file)}`]),
    ],
    // Disks and CDs are from 1 on.
    bootindex: order === "off" ? {} : { bootindex: order === "first" ? 0 : LAST_BOOTINDEX },
  };
}

/** A network card on qemu's user-mode network. */
export function buildNicArgs(machine: NicMachine, nic: Nic): string[] {
  const { netdev, device } = buildNic(machine, nic);
  const { options, bootindex } = buildNetboot(machine, nic);
  const { driver, ...properties } = { ...device, ...bootindex };
  const words = Object.entries(properties).map(([name, value]) => `${name}=${value}`);
  return [
    "-netdev",
    [netdev.type, `id=${netdev.id}`, ...nic.forwards, ...options].join(","),
    "-device",
    [driver, ...words].join(","),
  ];
}

/** The same card for a running machine. Of the forwards, other options than `hostfwd=` are not supported. */
export function plugCommands(machine: Placed, nic: Nic): QmpCommand[] {
  const { netdev, device } = buildNic(machine, nic);
  const rules = nic.forwards.flatMap((option) => /^hostfwd=(.*)/.exec(option)?.[1] ?? []);
  const hostfwd = rules.length > 0 && { hostfwd: rules.map((str) => ({ str })) };
  return [
    ["netdev_add", { ...netdev, ...hostfwd }],
    ["device_add", device],
    ...(nic.link === "down" ? [linkCommand(nic.number, nic.link)] : []),
  ];
}

export const removeNetdevCommand = (number: number): QmpCommand => ["netdev_del", { id: netdevOf(number) }];

/** Sets the link of a card. */
export const linkCommand = (number: number, link: Nic["link"]): QmpCommand => [
  "set_link",
  { name: nicDevice(number), up: link === "up" },
];

/** Command of the human monitor that adds or removes a forward (hmp-commands.hx): QMP has none. @param rule `tcp::5555-:22` */
export const forwardLine = (action: "add" | "remove", number: number, rule: string): string =>
  action === "add"
    ? `hostfwd_add ${netdevOf(number)} ${rule}`
    : `hostfwd_remove ${netdevOf(number)} ${rule.slice(0, rule.indexOf("-"))}`;

/** The card of a device's id, as in `DEVICE_DELETED` and /machine/peripheral; undefined for other devices. */
export const nicOfDevice = (id: string): number | undefined => {
  const index = /^net(\d{1,2})-dev$/.exec(id)?.[1];
  return index === undefined ? undefined : Number(index) + 1;
};
