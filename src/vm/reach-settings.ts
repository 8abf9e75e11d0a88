/** What the settings of a VM let it reach outside its directory. Each setting is classed here. */
import { dirname, resolve, sep } from "node:path";
import type { SettingName, Settings } from "../config/schema.ts";
import { lstatOf, realPath } from "../lib/read-file.ts";
import { expandMacro, macroOf, type MacroValues } from "../machine/macros.ts";
import { networkWord } from "../machine/network.ts";
import { LOOPBACK, parseHostForward } from "../machine/parse.ts";
import { readImageHeader } from "../qemu/image-header.ts";
import { isDiskName } from "../store/layout.ts";

/**
 * Something outside a VM's directory that `run` and `job` access because of its settings, or run with the caller's rights
 * (README, "Trust"), as `status --json` prints it.
 */
export interface Reach {
  /**
   * `base`: a backing file of a disk; `command`: one that qemu runs for a connection of the guest; `device`: what qemu
   * connects it with; `port`: one that other hosts reach; `file`: any other file or directory.
   */
  kind:
    | "share"
    | "image"
    | "cd"
    | "netboot"
    | "network"
    | "port"
    | "command"
    | "device"
    | "arguments"
    | "job"
    | "base"
    | "file";
  /** A path; for `arguments` also their count; for `network` and `port` as in the setting. */
  what: string;
  /** The guest may write there. */
  writable?: boolean;
  /** An image whose backing files are opened as well. */
  backing?: true;
}

/** The VM's directories. */
export interface ReachPlaces {
  hostdir: string;
  /** Relative paths of images and shares begin here. */
  workdir: string;
  macros: MacroValues;
  /** The CD of the settings is in the drive in the next run. */
  insertsCd: boolean;
}

type Find = (settings: Settings, at: ReachPlaces) => Reach[];

/** Is a path, symlinks resolved, in one of the VM's directories? */
function isWithin({ hostdir, workdir }: ReachPlaces, path: string): boolean {
  const tops = [hostdir, workdir].flatMap((top) => [top, realPath(top) ?? top]);
  return tops.some((top) => path === top || path.startsWith(top + sep));
}

/** Undefined within the VM; macros of check-media are not expanded. */
function outside(path: string, at: ReachPlaces, base = at.workdir): string | undefined {
  const expanded = expandMacro(path, at.macros);
  if (expanded === undefined) return path;
  const whole = resolve(base, expanded);
  if (!isWithin(at, whole)) return whole;
  // A symlink may lead out.
  const real = realPath(whole) ?? whole;
  return isWithin(at, real) ? undefined : real;
}

const reach = (kind: Reach["kind"], what: string | undefined): Reach[] =>
  what === undefined || what === "" ? [] : [{ kind, what }];

/** A path from HOSTDIR. */
const reachedPath =
  (
    kind: Reach["kind"],
    name: {
      [Name in SettingName]: Settings[Name] extends string ? Name : never;
    }[SettingName],
  ): Find =>
  (settings, at) =>
    settings[name] === "" ? [] : reach(kind, outside(settings[name], at, at.hostdir));

/** Those of the user's media, which check-media names, may be read by any VM. */
const isMedia = (path: string): boolean =>
  ["MEDIA", "MIRROR"].includes(macroOf(path) ?? "") && !path.split("/").includes("..");

const reachedShares =
  (name: "SHARES" | "RESCUE_SHARES"): Find =>
  (settings, at) =>
    settings[name].flatMap(({ path, writable }): Reach[] => {
      const what = outside(path, at);
      if (what === undefined || (!writable && isMedia(path))) return [];
      return [{ kind: "share", what, ...(writable && { writable }) }];
    });

const reachedByForwards =
  (name: "FORWARDS" | "RESCUE_FORWARDS"): Find =>
  (settings, at) =>
    settings[name].flatMap((option) => reachesOfForward(option, at));

/**
 * What an option of `-netdev user` lets the guest reach on the host, or other hosts the guest: `smb=DIR`, `tftp=DIR`,
 * `guestfwd=…-cmd:COMMAND`, `guestfwd=…-CHARDEV`, and `hostfwd=` of other addresses than loopback ones (qemu's
 * invocation, "Network options").
 */
function reachesOfForward(option: string, at: ReachPlaces): Reach[] {
  const [, name, text = ""] = /^(\w+)=(.*)$/s.exec(option.replaceAll(",,", ",")) ?? [];
  if (name === "hostfwd") {
    const { hostAddress = "" } = parseHostForward(text) ?? {};
    return LOOPBACK.test(hostAddress) ? [] : reach("port", text);
  }
  if (name === "guestfwd") {
    const command = /-cmd:(.*)$/s.exec(text)?.[1];
    return command === undefined
      ? reach("device", /^[^-]*-(.*)$/s.exec(text)?.[1] ?? text)
      : reach("command", command);
  }
  const what = name === "smb" || name === "tftp" ? outside(text, at) : undefined;
  if (what === undefined) return [];
  return [name === "smb" ? { kind: "share", what, writable: true } : { kind: "netboot", what }];
}

const reachedImages: Find = ({ IMAGES }, at) =>
  IMAGES.flatMap(({ path, format }): Reach[] => {
    const what = outside(path, at);
    const backing = format !== undefined && format !== "raw";
    if (what !== undefined) return [{ kind: "image", what, writable: true, ...(backing && { backing }) }];
    if (!backing || isDiskName(path)) return [];
    const image = resolve(at.workdir, expandMacro(path, at.macros)!);
    return basesOf(image, at).map((base) => ({ kind: "base", what: base }));
  });

/** Longest chain of backing files that is followed. */
const MAX_CHAIN = 32;

/** The first backing file outside the VM of an image within it, or what else it refers to. */
function basesOf(image: string, at: ReachPlaces): string[] {
  let path = image;
  for (let depth = 0; depth < MAX_CHAIN; depth++) {
    try {
      const { backingName, refersTo } = readImageHeader(path);
      if (backingName === undefined) return refersTo === undefined ? [] : [`${path} (its ${refersTo})`];
      path = resolve(dirname(path), backingName.replace(/^file:/, ""));
    } catch {
      // Reported elsewhere.
      return [];
    }
    if (!isWithin(at, realPath(path) ?? path)) return [path];
  }
  return [path];
}

/** Searched for in the current directory, in HOSTDIR, then in the media storage. */
const reachedCd: Find = ({ ISO }, at) =>
  at.insertsCd &&
  ISO !== "" &&
  !(lstatOf(resolve(at.hostdir, ISO)) && outside(ISO, at, at.hostdir) === undefined)
    ? reach("cd", ISO)
    : [];

/** A display on the network. */
const reachedByDisplay: Find = ({ HOST, PORT, DISPLAY_PROTOCOL, SPICE_SOCKET }) =>
  HOST === "" || PORT === undefined || DISPLAY_PROTOCOL === "none" || SPICE_SOCKET || LOOPBACK.test(HOST)
    ? []
    : reach("port", `${DISPLAY_PROTOCOL} ${HOST.includes(":") ? `[${HOST}]` : HOST}:${PORT}`);

const reachedNetworks: Find = ({ NETWORKS }) =>
  NETWORKS.flatMap((network) =>
    ["bridge", "tap", "net"].includes(network.kind) ? reach("network", networkWord(network)) : [],
  );

/** Reaches nothing. */
const HARMLESS = "harmless";
/** Of the user's own files only: not read from a guest.env. */
const IGNORED = "ignored";

/** A new setting is classed here: what it lets the VM reach on the host. */
export const REACH_OF: Readonly<Record<SettingName, typeof HARMLESS | typeof IGNORED | Find>> = {
  GUESTNAME: HARMLESS,
  QEMUARCH: HARMLESS,
  SOCKETS: HARMLESS,
  CORES: HARMLESS,
  MEMORY: HARMLESS,
  UEFI: HARMLESS,
  SECURE_BOOT: HARMLESS,
  TPM: HARMLESS,
  ISO: reachedCd,
  KEEPCD: HARMLESS,
  FORWARDS: reachedByForwards("FORWARDS"),
  HOST: reachedByDisplay,
  PORT: HARMLESS,
  DISPLAY_PROTOCOL: HARMLESS,
  SPICE_SOCKET: HARMLESS,
  USENETDEV: HARMLESS,
  SHARES: reachedShares("SHARES"),
  IMAGES: reachedImages,
  IMAGE_FORMATS: HARMLESS,
  IMAGE_NUMBERS: HARMLESS,
  CONTROLLER_PLACES: HARMLESS,
  ACCEL: HARMLESS,
  CPU: HARMLESS,
  DISK_AIO: HARMLESS,
  SHARED_RAM: HARMLESS,
  // Fields that name files are not taken.
  SMBIOS: HARMLESS,
  SSH_USER: HARMLESS,
  LABELS: HARMLESS,
  CPU_QUOTA: HARMLESS,
  MEMORY_MAX: HARMLESS,
  IO_WEIGHT: HARMLESS,
  SLICE: HARMLESS,
  DISK_LIMITS: HARMLESS,
  NETWORKS: reachedNetworks,
  NETBOOT: HARMLESS,
  NETBOOT_DIR: reachedPath("netboot", "NETBOOT_DIR"),
  NETBOOT_FILE: HARMLESS,
  UUID: HARMLESS,
  LAYOUT: HARMLESS,
  MAC: HARMLESS,
  UUID_FORMER: HARMLESS,
  TEMPLATE: HARMLESS,
  DISKS: HARMLESS,
  INPLACE: HARMLESS,
  JAIL: IGNORED,
  // Behind MEDIA, which they may leave.
  MEDIA_MIRROR: ({ MEDIA_MIRROR }) => reach("file", MEDIA_MIRROR && `@MEDIA@${MEDIA_MIRROR}`),
  MEDIA_STORAGE: ({ MEDIA_STORAGE }) => reach("file", MEDIA_STORAGE && `@MEDIA@${MEDIA_STORAGE}`),
  // The guest gets their content.
  SSHKEYS: ({ SSHKEYS }, at) => SSHKEYS.flatMap((path) => reach("file", outside(path, at, at.hostdir))),
  // Their jobs have hooks, which run on the host.
  PROFILES: reachedPath("job", "PROFILES"),
  LIBEXEC: reachedPath("job", "LIBEXEC"),
  OVMF_CODE: reachedPath("file", "OVMF_CODE"),
  OVMF_VARS: reachedPath("file", "OVMF_VARS"),
  PIGZ_LEVEL: HARMLESS,
  SNAPSHOT_FORMAT: HARMLESS,
  SNAPSHOT_CHAIN: HARMLESS,
  KEEP_LAST: HARMLESS,
  KEEP_HOURLY: HARMLESS,
  KEEP_DAILY: HARMLESS,
  KEEP_WEEKLY: HARMLESS,
  KEEP_MONTHLY: HARMLESS,
  KEEP_YEARLY: HARMLESS,
  SNAPSHOT_REPO: IGNORED,
  SNAPSHOT_PASSWORD_FILE: IGNORED,
  SNAPSHOT_NOTIFY: IGNORED,
  SPICE_PASSWORD: HARMLESS,
  SPICE_TICKETING: HARMLESS,
  SPICE_TLS_DIR: reachedPath("file", "SPICE_TLS_DIR"),
  STOP_TIMEOUT: HARMLESS,
  HOOK_TIMEOUT: HARMLESS,
  RESCUE: HARMLESS,
  RESCUE_ISO: reachedPath("cd", "RESCUE_ISO"),
  RESCUE_SOCKETS: HARMLESS,
  RESCUE_CORES: HARMLESS,
  RESCUE_MEMORY: HARMLESS,
  RESCUE_FORWARDS: reachedByForwards("RESCUE_FORWARDS"),
  RESCUE_SHARES: reachedShares("RESCUE_SHARES"),
  RESCUE_KERNEL: reachedPath("file", "RESCUE_KERNEL"),
  RESCUE_VMLINUX: reachedPath("file", "RESCUE_VMLINUX"),
  RESCUE_INITRD: reachedPath("file", "RESCUE_INITRD"),
  RESCUE_WARM: HARMLESS,
  RESCUE_START_TIMEOUT: HARMLESS,
  TIMEOUT: HARMLESS,
  CLR_NORM: HARMLESS,
  CLR_BOLD: HARMLESS,
  CLR_LC1: HARMLESS,
  CLR_LC2: HARMLESS,
  CLR_OK: HARMLESS,
  CLR_ERR: HARMLESS,
  CLR_WARN: HARMLESS,
};

/** What these of the settings reach. No file outside the VM's directories is opened. */
export const reachesOfSettings = (
  names: readonly SettingName[],
  settings: Settings,
  at: ReachPlaces,
): Reach[] =>
  names.flatMap((name) => {
    const find = REACH_OF[name];
    return typeof find === "function" ? find(settings, at) : [];
  });
