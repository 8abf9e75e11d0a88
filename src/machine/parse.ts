import { parseSize } from "../lib/size.ts";
import {
  DISK_BUSES,
  IMAGE_FORMATS,
  type DiskBus,
  type DiskRequest,
  type ImageFormat,
  type ImageRequest,
  type ShareRequest,
} from "./types.ts";

/** What is allowed, in the words of an error message. */
export const DISK_SYNTAX = `TYPE=SIZE, TYPE one of ${DISK_BUSES.join(" ")}, SIZE like 30G or 512M`;
export const IMAGE_SYNTAX = `TYPE=[FMT=]PATH, TYPE one of ${DISK_BUSES.join(" ")}, FMT one of ${IMAGE_FORMATS.join(" ")}`;
export const IMAGE_FORMAT_SYNTAX = `FMT=PATH, FMT one of ${IMAGE_FORMATS.join(" ")}, PATH from /`;
export const SHARE_SYNTAX =
  "ID:[rw:]DIR, ID of at most 31 letters, digits and . _ -, beginning with a letter or digit";
export const FORWARD_SYNTAX =
  "hostfwd=PROTO:[ADDR]:PORT-[ADDR]:PORT, PROTO tcp or udp, ADDR an IPv4 address, ports 1 to 65535";

const isBus = (text: string): text is DiskBus => (DISK_BUSES as readonly string[]).includes(text);
const isFormat = (text: string): text is ImageFormat => (IMAGE_FORMATS as readonly string[]).includes(text);

/** The smallest disk worth the name: one sector. */
const MIN_DISK_BYTES = 512;

/** `AHCI=30G` → a disk to create. */
export function parseDisk(text: string): DiskRequest | undefined {
  const [bus = "", size = ""] = splitOnce(text, "=");
  const sizeBytes = parseSize(size);
  return isBus(bus) && sizeBytes && sizeBytes >= MIN_DISK_BYTES ? { bus, sizeBytes } : undefined;
}

/** `VIRT=raw=/data/x.img` → an image to attach. A path that itself holds `=` is kept whole. */
export function parseImage(text: string): ImageRequest | undefined {
  const [bus = "", rest = ""] = splitOnce(text, "=");
  const [head = "", tail] = splitOnce(rest, "=");
  const [format, path] = tail !== undefined && isFormat(head) ? [head, tail] : [undefined, rest];
  return isBus(bus) && path ? { bus, format, path } : undefined;
}

/** `raw=/data/x.img` → the format of an image. */
export function parseImageFormat(text: string): { format: ImageFormat; path: string } | undefined {
  const [format = "", path = ""] = splitOnce(text, "=");
  return isFormat(format) && path.startsWith("/") ? { format, path } : undefined;
}

/** `out:rw:/srv/x` → a shared folder. */
export function parseShare(text: string): ShareRequest | undefined {
  const match = /^([A-Za-z0-9][A-Za-z0-9._-]{0,30}):(rw:|ro:)?(?!r[wo]:$)([^]+)$/.exec(text);
  return match ? { tag: match[1]!, writable: match[2] === "rw:", path: match[3]! } : undefined;
}

const port = (text: string): boolean => /^[0-9]{1,5}$/.test(text) && +text >= 1 && +text <= 65535;

export interface ForwardRule {
  protocol: "tcp" | "udp";
  /** Empty: every address of the host. */
  hostAddress: string;
  hostPort: number;
  /** Empty: the first one that the guest gets. */
  guestAddress: string;
  guestPort: number;
}

const HOSTFWD = /^(tcp|udp)?:(\[[^\]]*\]|[^:,]*):([0-9]+)-(\[[^\]]*\]|[^:,]*):([0-9]+)$/;

/** What a `hostfwd=` rule says (the value alone); undefined when it is malformed. */
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

/** An address or a host name: it becomes a word of an argument list, which must not be an option there. */
const HOST = /^[A-Za-z0-9:_][A-Za-z0-9.:_%-]*$/;

/** The guest's port for SSH. */
export const SSH_PORT = 22;

/**
 * Where on this host a TCP port of the guest is found. A rule whose host is no address or name is passed over.
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

/** Further options of `-netdev user` that a `FORWARDS` of old may hold. */
const NETDEV_KEYS =
  /^(guestfwd|restrict|net|host|hostname|dhcpstart|dns|dnssearch|domainname|ipv4|ipv6|ipv6-net|ipv6-host|ipv6-dns|tftp|bootfile|smb|smbserver)=/;

/** What qemu reads by inet_aton(3); it knows neither names nor IPv6 there (net/slirp.c, slirp_hostfwd). */
const IPV4 = /^(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){0,3}$/;

const anywhere = (address: string): boolean => address === "" || address === "0.0.0.0";

/** Do two forwards want one port of the host? Some address and every address overlap. */
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
 * @returns the options, or the first one that qemu would not take, and what it takes
 */
export function parseForwards(text: string): { options: string[] } | { malformed: string; allowed: string } {
  const options: string[] = [];
  const rules: ForwardRule[] = [];
  // A doubled comma is part of a value; qemu reads from the left.
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

/** What a malformed value could stand for: forms of other programs (docker, multipass, virt-install). */
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
