import { parseSize } from "../lib/size.ts";
import {
  DISK_BUSES,
  IMAGE_FORMATS,
  type ControllerPlace,
  type DiskBus,
  type DiskRequest,
  type ImageFormat,
  type ImageRequest,
  type ShareRequest,
} from "./types.ts";

/** Syntax, for error messages. */
export const DISK_SYNTAX = `TYPE=SIZE, TYPE one of ${DISK_BUSES.join(" ")}, SIZE like 30G or 512M`;
export const IMAGE_SYNTAX = `TYPE=[FMT=]PATH, TYPE one of ${DISK_BUSES.join(" ")}, FMT one of ${IMAGE_FORMATS.join(" ")}`;
export const IMAGE_FORMAT_SYNTAX = `FMT=PATH, FMT one of ${IMAGE_FORMATS.join(" ")}, PATH from /`;
export const IMAGE_NUMBER_SYNTAX = "N=PATH, N a number, PATH as in IMAGES";
export const CONTROLLER_PLACE_SYNTAX = "CONTROLLER=N, CONTROLLER like scsi0, N the number of a disk";
export const SHARE_SYNTAX =
  "ID:[rw:]DIR, ID of at most 31 letters, digits and . _ -, starting with a letter or digit";
export const FORWARD_SYNTAX =
  "hostfwd=PROTO:[ADDR]:PORT-[ADDR]:PORT, PROTO tcp or udp, ADDR an IPv4 address, ports 1 to 65535";

const isBus = (text: string): text is DiskBus => (DISK_BUSES as readonly string[]).includes(text);
const isFormat = (text: string): text is ImageFormat => (IMAGE_FORMATS as readonly string[]).includes(text);

/**
 * Sizes of a disk: one sector, and what the largest L1 table of a qcow2 image with clusters of 64 KiB covers
 * (block/qcow2.h, QCOW_MAX_L1_SIZE).
 */
const DISK_BYTES = { least: 512, most: 2 ** 51 } as const;
export const DISK_SIZES = "512 bytes to 2048T";

const isDiskSize = (bytes: number): boolean => bytes >= DISK_BYTES.least && bytes <= DISK_BYTES.most;

/** `30G` → the size of a disk in bytes. */
export function parseDiskSize(text: string): number | undefined {
  const bytes = parseSize(text);
  return bytes !== undefined && isDiskSize(bytes) ? bytes : undefined;
}

/** Is this written as a size, also as one that no disk can have? `8E`, `0`, `-5G`, `1.5T` */
export const looksLikeSize = (text: string): boolean => /^[-+]?\d[\d.,]* ?([KMGTPEZY](i?B)?|B)?$/i.test(text);

/** `AHCI=30G` → a disk to create. */
export function parseDisk(text: string): DiskRequest | undefined {
  const [bus = "", size = ""] = splitOnce(text, "=");
  const sizeBytes = parseDiskSize(size);
  return isBus(bus) && sizeBytes !== undefined ? { bus, sizeBytes } : undefined;
}

/** `VIRT=raw=/data/x.img` → an image to attach. The path may contain `=`. */
export function parseImage(text: string): ImageRequest | undefined {
  const [bus = "", rest = ""] = splitOnce(text, "=");
  const [head = "", tail] = splitOnce(rest, "=");
  const [format, path] = tail !== undefined && isFormat(head) ? [head, tail] : [undefined, rest];
  return isBus(bus) && path ? { bus, format, path } : undefined;
}

/** An image as a setting has it. */
export const formatImage = ({ bus, format, path }: ImageRequest): string =>
  `${bus}=${format === undefined ? "" : `${format}=`}${path}`;

/** `raw=/data/x.img` → the format of an image. */
export function parseImageFormat(text: string): { format: ImageFormat; path: string } | undefined {
  const [format = "", path = ""] = splitOnce(text, "=");
  return isFormat(format) && path.startsWith("/") ? { format, path } : undefined;
}

/** `2=/data/x.img` → the number of an image. */
export function parseImageNumber(text: string): { number: number; path: string } | undefined {
  const match = /^([0-9]{1,4})=([^]+)$/.exec(text);
  return match ? { number: Number(match[1]), path: match[2]! } : undefined;
}

/** `scsi0=1` → the place of a controller. */
export function parseControllerPlace(text: string): ControllerPlace | undefined {
  const match = /^((?:ahci|scsi)\d{1,3})=(\d{1,2})$/.exec(text);
  return match ? { controller: match[1]!, place: Number(match[2]) } : undefined;
}

/** `out:rw:/srv/x` → a shared folder. */
export function parseShare(text: string): ShareRequest | undefined {
  const match = /^([A-Za-z0-9][A-Za-z0-9._-]{0,30}):(rw:|ro:)?(?!r[wo]:$)([^]+)$/.exec(text);
  return match ? { tag: match[1]!, writable: match[2] === "rw:", path: match[3]! } : undefined;
}

const port = (text: string): boolean => /^[0-9]{1,5}$/.test(text) && +text >= 1 && +text <= 65535;

export interface ForwardRule {
  protocol: "tcp" | "udp";
  /** Empty: all addresses of the host. */
  hostAddress: string;
  hostPort: number;
  /** Empty: the guest's first address. */
  guestAddress: string;
  guestPort: number;
}

const HOSTFWD = /^(tcp|udp)?:(\[[^\]]*\]|[^:,]*):([0-9]+)-(\[[^\]]*\]|[^:,]*):([0-9]+)$/;

/** Parses the value of a `hostfwd=` rule; undefined if malformed. */
export function parseHostForward(rule: string): ForwardRule | undefined {
  const match = HOSTFWD.exec(rule);
  if (!match || !port(match[3]!) || !port(match[5]!)) return undefined;
  return {
    protocol: match[1] === "udp" ? "udp" : "tcp",
    hostAddress: match[2]!.replace(/^\[|\]$/g, ""),
    hostPort: +match[3]!,
    guestAddress: match[4]!.replace(/^\[|\]$/g, ""),
    guestPort: +match[5]!,
  };
}

/** An address or host name: as an argument of a program it must not look like an option. */
const HOST = /^[A-Za-z0-9:_][A-Za-z0-9.:_%-]*$/;

/** Loopback addresses. */
export const LOOPBACK: RegExp = /^(localhost|127(\.\d+){3}|::1)$/;

/** The guest's port for SSH. */
export const SSH_PORT = 22;

/**
 * Finds the forward of this host to a TCP port of the guest. Rules with an invalid host are ignored.
 * @param options of `-netdev user`
 */
export function findForward(
  options: readonly string[],
  guestPort: number,
): { host: string; port: number } | undefined {
  for (const option of options) {
    const rule = option.startsWith("hostfwd=")
      ? parseHostForward(option.slice("hostfwd=".length))
      : undefined;
    if (rule?.protocol !== "tcp" || rule.guestPort !== guestPort) continue;
    const host = anywhere(rule.hostAddress) ? "127.0.0.1" : rule.hostAddress;
    if (HOST.test(host) && rule.hostPort > 0) return { host, port: rule.hostPort };
  }
  return undefined;
}

/** Other options of `-netdev user` that an old `FORWARDS` may have. */
const NETDEV_KEYS =
  /^(guestfwd|restrict|net|host|hostname|dhcpstart|dns|dnssearch|domainname|ipv4|ipv6|ipv6-net|ipv6-host|ipv6-dns|tftp|bootfile|smb|smbserver)=/;

/** Parsed by qemu with inet_aton(3), without names and IPv6 (net/slirp.c, slirp_hostfwd). */
const IPV4 = /^(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){0,3}$/;

const anywhere = (address: string): boolean => address === "" || address === "0.0.0.0";

/** Do two forwards use the same port of the host? All addresses include any single one. */
function isSamePort(one: ForwardRule, other: ForwardRule): boolean {
  const [a, b] = [one.hostAddress, other.hostAddress];
  return (
    one.protocol === other.protocol &&
    one.hostPort === other.hostPort &&
    (a === b || anywhere(a) || anywhere(b))
  );
}

/**
 * Splits `FORWARDS` text (`hostfwd=tcp::5555-:22,hostfwd=…`) into options of `-netdev user`;
 * a rule without a key means `hostfwd=`.
 * @returns the options, or the first one that qemu would reject, with the allowed syntax
 */
export function parseForwards(text: string): { options: string[] } | { malformed: string; allowed: string } {
  const options: string[] = [];
  const rules: ForwardRule[] = [];
  // A doubled comma is part of a value; qemu parses from the left.
  for (const [piece] of text.matchAll(/(?:[^,]|,,)+/g)) {
    if (piece.trim() === "") continue;
    const rule = piece.trim();
    if (NETDEV_KEYS.test(rule)) {
      options.push(rule);
      continue;
    }
    const bare = rule.replace(/^hostfwd=/, "");
    const parsed = parseHostForward(bare);
    if (!parsed || ![parsed.hostAddress, parsed.guestAddress].every((item) => item === "" || IPV4.test(item)))
      return { malformed: rule, allowed: FORWARD_SYNTAX };
    if (rules.some((earlier) => isSamePort(earlier, parsed)))
      return { malformed: rule, allowed: "each port of an address once" };
    rules.push(parsed);
    options.push(`hostfwd=${bare}`);
  }
  return { options };
}

/** The likely meaning of a malformed value: the syntax of docker, multipass or virt-install. */
export function meantForward(rule: string): string | undefined {
  const match =
    /^(?:(tcp|udp):+)?(?:(\[[^\]]*\]|[\w.]+):)?([0-9]+)[-:]+(?:[\w.]+:)?([0-9]+)(?:\/(tcp|udp))?$/.exec(
      rule.replace(/^hostfwd=/, ""),
    );
  if (!match) return undefined;
  const [, before, address = "127.0.0.1", from, to, behind] = match;
  const meant = `${before ?? behind ?? "tcp"}:${address}:${from}-:${to}`;
  return parseHostForward(meant) && meant;
}

export const meantDisk = (text: string): string | undefined => {
  const size = text.replace(/^[A-Za-z]*=/, "");
  const bus = DISK_BUSES.find((one) => text.toUpperCase().startsWith(`${one}=`)) ?? DISK_BUSES[0];
  return parseDisk(`${bus}=${size}`) && `${bus}=${size}`;
};

export const meantImage = (text: string): string | undefined =>
  text.includes("=") ? undefined : `${DISK_BUSES[0]}=${text}`;

export function meantShare(text: string): string | undefined {
  const name = /([A-Za-z0-9][\w.-]{0,30})\/*$/.exec(text)?.[1];
  return /^[./~]/.test(text) && name !== undefined ? `${name}:${text}` : undefined;
}

/** `a=b=c` at the first `=`: `["a", "b=c"]`; without one `["a"]`. */
function splitOnce(text: string, separator: string): string[] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)];
}
