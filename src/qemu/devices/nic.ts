import type { Machine, Nic } from "../../machine/types.ts";
import type { QmpCommand } from "../../qmp/commands.ts";
import { placeOfNic, type Placed } from "../layout.ts";
import { escapeCommas } from "../text.ts";

const netdevOf = (number: number): string => `net${number - 1}`;
export const nicDevice = (number: number): string => `${netdevOf(number)}-dev`;

const lifelineOf = (number: number): string => `${netdevOf(number)}-life`;

/** Networks whose connection this program opens, and qemu gets as a descriptor: it starts no programs itself (-sandbox). */
export const usesDescriptor = ({ network: { kind } }: Nic): boolean =>
  kind === "passt" || kind === "bridge" || kind === "net";

/** Descriptors behind stdin, stdout and stderr. */
const FIRST_FD = 3;

/** The descriptor that qemu inherits for a card: in order of the cards that use one. */
const inheritedFd = (nics: readonly Nic[], nic: Nic): string =>
  String(FIRST_FD + nics.filter(usesDescriptor).indexOf(nic));

/** The descriptor behind those that the cards inherit. */
export const firstFdBehind = (nics: readonly Nic[]): number => FIRST_FD + nics.filter(usesDescriptor).length;

/** Name of a descriptor that a running qemu was sent (`getfd`). */
export const fdName = (number: number): string => `${netdevOf(number)}-fd`;

/** Properties of `-netdev` and `netdev_add`, without those of the user-mode network. @param fd number or name */
function buildNetdev({ number, network: { kind, name } }: Nic, fd: string) {
  const id = netdevOf(number);
  switch (kind) {
    case "passt":
      return { type: "socket", id, fd } as const;
    case "bridge":
    case "net":
      return { type: "tap", id, fd } as const;
    case "tap":
      return { type: "tap", id, ifname: name!, script: "no", downscript: "no" } as const;
    default:
      return { type: "user", id } as const;
  }
}

/** Properties of `-device` and `device_add`. */
const buildDevice = (machine: Placed, { number, mac, announced }: Nic) => ({
  driver: "virtio-net-pci",
  netdev: netdevOf(number),
  id: nicDevice(number),
  ...(mac !== undefined && { mac }),
  ...(announced === false && { guest_announce: "off" as const }),
  ...placeOfNic(machine, number),
});

/** Behind all disks and CDs, also those that are added later. */
const LAST_BOOTINDEX = 1000;

type NicMachine = Placed & Pick<Machine, "nics" | "netboot">;

/** Network boot by the first card; the files of NETBOOT_DIR are on the user-mode network. */
function buildNetboot({ nics, netboot }: NicMachine, { number, network }: Nic) {
  if (nics[0]?.number !== number) return { options: [], bootindex: {} };
  const { order, directory, file } = netboot;
  const options = [
    ...(directory === undefined ? [] : [`tftp=${escapeCommas(directory)}`]),
    ...(file === undefined ? [] : [`bootfile=${escapeCommas(file)}`]),
  ];
  return {
    options: network.kind === "user" ? options : [],
    // Disks and CDs are from 1 on.
    bootindex: order === "off" ? {} : { bootindex: order === "first" ? 0 : LAST_BOOTINDEX },
  };
}

const wordsOf = (properties: object): string[] =>
  Object.entries(properties).map(([name, value]) => `${name}=${value as string | number}`);

/** A network card. Its descriptor, if it uses one, is inherited. */
export function buildNicArgs(machine: NicMachine, nic: Nic): string[] {
  const { type, ...netdev } = buildNetdev(nic, inheritedFd(machine.nics, nic));
  const { options, bootindex } = buildNetboot(machine, nic);
  const { driver, ...properties } = { ...buildDevice(machine, nic), ...bootindex };
  const forwards = type === "user" ? nic.forwards : [];
  return [
    ...(nic.lifeline === undefined
      ? []
      : ["-chardev", `pipe,id=${lifelineOf(nic.number)},path=${escapeCommas(nic.lifeline)}`]),
    "-netdev",
    [type, ...wordsOf(netdev), ...forwards, ...options].join(","),
    "-device",
    [driver, ...wordsOf(properties)].join(","),
  ];
}

/**
 * The same card for a running machine, which was sent its descriptor before. Of the forwards, other options than
 * `hostfwd=` are not supported.
 */
export function plugCommands(machine: Placed, nic: Nic): QmpCommand[] {
  const netdev = buildNetdev(nic, fdName(nic.number));
  const rules = nic.forwards.flatMap((option) => /^hostfwd=(.*)/.exec(option)?.[1] ?? []);
  const hostfwd = rules.length > 0 && { hostfwd: rules.map((str) => ({ str })) };
  return [
    ...(nic.lifeline === undefined ? [] : [holdCommand(nic.number, nic.lifeline)]),
    ["netdev_add", netdev.type === "user" ? { ...netdev, ...hostfwd } : netdev],
    ["device_add", buildDevice(machine, nic)],
    ...(nic.link === "down" ? [linkCommand(nic.number, nic.link)] : []),
  ];
}

const holdCommand = (number: number, device: string): QmpCommand => [
  "chardev-add",
  { id: lifelineOf(number), backend: { type: "pipe", data: { device } } },
];

/** Closes the pipe of a network among VMs: the machine is no longer a member. */
export const letGoCommand = (number: number): QmpCommand => ["chardev-remove", { id: lifelineOf(number) }];

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
