import { ARCH, type ArchFacts } from "../../machine/arch.ts";
import type { DisplayAddress, Machine, SharedDisplay } from "../../machine/types.ts";
import type { Capabilities } from "../capabilities.ts";
import { placed, placeOf, type Placed } from "../layout.ts";
import { escapeCommas } from "../text.ts";

/** Port of VNC display 0. */
export const VNC_FIRST_PORT = 5900;

/** SPICE, VNC, or a graphics card without a display. qemu never opens a window. */
export function buildDisplayArgs(
  machine: Placed & Pick<Machine, "display">,
  capabilities: Capabilities,
): string[] {
  const { display } = machine;
  const none = ["-display", "none"];
  const plain = buildCard(machine);
  if (display.kind === "serial") return none;
  if (display.kind === "none") return [...none, ...plain];
  const { kind, passwordFile } = display;
  const secret = `${kind}-password`;
  const object = passwordFile ? ["-object", `secret,id=${secret},file=${escapeCommas(passwordFile)}`] : [];
  const server =
    kind === "spice"
      ? buildSpiceArgs(machine, display, secret, capabilities)
      : [...buildVncArgs(display.at, passwordFile && secret), ...plain];
  return [...none, ...object, ...server];
}

const buildCard = (machine: Placed, card: string = ARCH[machine.arch].card): string[] => [
  "-device",
  `${card},id=vga0${placed(placeOf(machine, "card"))}`,
];

function buildSpiceArgs(
  machine: Placed,
  { at, passwordFile, tls }: SharedDisplay,
  secret: string,
  capabilities: Capabilities,
): string[] {
  const { spiceCard }: ArchFacts = ARCH[machine.arch];
  const port = tls ? "tls-port" : "port";
  const address =
    "socket" in at
      ? `unix=on,addr=${escapeCommas(at.socket)}`
      : `addr=${escapeCommas(at.host)},${port}=${at.port}`;
  const access = passwordFile ? `password-secret=${secret}` : "disable-ticketing=on";
  const certificates = tls ? `,x509-dir=${escapeCommas(tls.directory)}` : "";
  const own = spiceCard !== undefined && capabilities.devices.has(spiceCard);
  return [
    "-spice",
    `${address},${access}${certificates}`,
    ...buildCard(machine, own ? spiceCard : undefined),
    // For spice-vdagent in the guest: clipboard and screen size.
    "-device",
    `virtio-serial-pci,id=serial-bus0${placed(placeOf(machine, "vdagent"))}`,
    "-chardev",
    "spicevmc,id=vdagent,name=vdagent",
    "-device",
    "virtserialport,bus=serial-bus0.0,chardev=vdagent,name=com.redhat.spice.0",
  ];
}

function buildVncArgs(at: DisplayAddress, secret: string | undefined): string[] {
  const address =
    "socket" in at
      ? `unix:${escapeCommas(at.socket)}`
      : `${bracket(escapeCommas(at.host))}:${at.port - VNC_FIRST_PORT}`;
  return ["-vnc", secret ? `${address},password-secret=${secret}` : address];
}

/** Encloses an IPv6 address in brackets. */
export const bracket = (host: string): string => (host.includes(":") ? `[${host}]` : host);
