import { lstatSync, readdirSync, readlinkSync } from "node:fs";
import { basename, dirname, join, sep } from "node:path";
import { findProgram } from "../process/exec.ts";
import type { Disk, Machine, ReadImage } from "../machine/types.ts";
import { lstatOf } from "../lib/read-file.ts";
import { readImageHeader } from "./image-header.ts";
import type { JailPath, JailView } from "./jail.ts";

/** A file for a jail, as named in arguments: symlinks may be on its way. */
export type WantedPath = JailPath;

const toRead = (path: string): WantedPath => ({ path, access: "read" });

const toWrite = (path: string): WantedPath => ({ path, access: "write" });
const toUse = (path: string): WantedPath => ({ path, access: "device" });

const ETC = [
  "hosts",
  "host.conf",
  "nsswitch.conf",
  "gai.conf",
  "services",
  "resolv.conf",
  "alternatives",
  "crypto-policies",
  "gnutls",
  "ld.so.cache",
  "localtime",
];

/** Programs, libraries, firmware and keymaps, and the host's settings that they read. Those that do not exist are left out. */
const SYSTEM: readonly WantedPath[] = [
  ...["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"].map(toRead),
  // Names and name servers for qemu's sockets and its user-mode network; where the TLS libraries find their settings.
  ...ETC.map((name) => toRead(join("/etc", name))),
  ...["null", "zero", "random", "urandom", "kvm"].map((name): WantedPath => ({
    path: join("/dev", name),
    access: "device",
  })),
];

/** Is a program, symlinks resolved, in the directories above? */
export function isOfSystem(path: string): boolean {
  const real = resolveLinks(path, new Map());
  return SYSTEM.some((item) => real.startsWith(item.path + sep));
}

/** A program outside of the directories above comes with what is installed with it. */
function findOwnProgram(name: string): WantedPath[] {
  const path = findProgram(name);
  if (path === undefined) return [];
  if (isOfSystem(path)) return [toRead(path)];
  const directory = dirname(resolveLinks(path, new Map()));
  const prefix = dirname(directory);
  const installed = basename(directory) === "bin" ? ["share/qemu", "lib", "lib64", "libexec"] : [];
  return [path, directory, ...installed.map((one) => join(prefix, one))].map(toRead);
}

/** The widest last. */
const ACCESSES: readonly JailPath["access"][] = ["read", "create", "write", "device"];

/**
 * What a jail's root holds.
 * @param program qemu
 * @param wanted absolute; of one place the widest access is in force
 */
export function viewOf(program: string, wanted: readonly WantedPath[]): JailView {
  const links = new Map<string, string>();
  const found = new Map<string, JailPath["access"]>();
  for (const { path, access } of [...SYSTEM, ...findOwnProgram(program), ...wanted]) {
    const real = resolveLinks(path, links);
    const known = found.get(real);
    const isWider = known === undefined || ACCESSES.indexOf(access) > ACCESSES.indexOf(known);
    if (isWider && isThere(real)) found.set(real, access);
  }
  const paths = [...found]
    .map(([path, access]): JailPath => ({
      path,
      access,
      ...(access === "write" && lstatOf(path)?.isDirectory() && { isDirectory: true }),
    }))
    .toSorted((one, other) => (one.path < other.path ? -1 : 1));
  const outer = (path: string): JailPath | undefined =>
    paths.findLast((item) => path.startsWith(item.path + sep));
  return {
    paths: paths.filter(({ path, access }) => {
      const around = outer(path)?.access;
      return around !== access && !(around === "write" && access === "create");
    }),
    // Those within a directory of the jail are there with it.
    links: [...links].filter(([path]) => outer(path) === undefined && !found.has(path)),
  };
}

function isThere(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    // A loop of symlinks, or a directory that this user cannot enter: qemu could not, either.
    return false;
  }
}

/** As many as the kernel follows (path_resolution(7)). */
const MOST_LINKS = 40;

/** Path without symlinks, which are added to `links`. What does not exist is kept as it is. */
function resolveLinks(path: string, links: Map<string, string>): string {
  const rest = path.split(sep);
  let at: string = sep;
  for (let followed = 0; rest.length > 0;) {
    const name = rest.shift()!;
    if (name === "" || name === ".") continue;
    const next = name === ".." ? dirname(at) : join(at, name);
    const target = name === ".." ? undefined : readLink(next);
    if (target === undefined || ++followed > MOST_LINKS) {
      at = next;
      continue;
    }
    links.set(next, target);
    rest.unshift(...target.split(sep));
    if (target.startsWith(sep)) at = sep;
  }
  return at;
}

function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

const pathsOfImage = (image: ReadImage | undefined): WantedPath[] =>
  image
    ? [{ path: image.path, access: image.blockDevice ? "device" : "read" }, ...pathsOfImage(image.base)]
    : [];

/** Disks to write to, with their backing files. */
export const pathsOfDisks = (disks: readonly Pick<Disk, "path" | "base" | "blockDevice">[]): WantedPath[] =>
  disks.flatMap(({ path, base, blockDevice }): WantedPath[] => [
    ...pathsOfImage(base),
    { path, access: blockDevice ? "device" : "write" },
  ]);

/** The files that a machine's arguments name. */
export function pathsOfMachine(machine: Machine): WantedPath[] {
  const { disks, cdrom, seed, nics, netboot, shares, display, kernel, bootLoader, firmware } = machine;
  const hasDevice = disks.some(({ blockDevice }) => blockDevice) || cdrom?.blockDevice === true;
  return [
    ...disks
      .filter(({ base, backingAllowed }) => base === undefined && backingAllowed)
      .flatMap(({ path }) => pathsBehind(path)),
    ...pathsOfDisks(disks),
    ...(cdrom ? pathsOfImage({ format: "raw", ...cdrom }) : []),
    ...[seed, kernel?.image, kernel?.initrd, bootLoader, firmware?.code.path, netboot.directory].flatMap(
      (path) => (path === undefined ? [] : [toRead(path)]),
    ),
    ...("at" in display && display.tls ? [toRead(display.tls.directory)] : []),
    ...("at" in display && display.passwordFile !== undefined ? [toRead(display.passwordFile)] : []),
    ...(firmware ? [{ path: firmware.vars.path, access: "write" } as const] : []),
    ...nics.flatMap(({ lifeline }) => (lifeline === undefined ? [] : [toWrite(lifeline)])),
    ...(nics.some(({ network }) => network.kind === "tap") ? [toUse("/dev/net/tun")] : []),
    ...shares.map(({ path, writable }) => (writable ? toWrite(path) : toRead(path))),
    // Geometry and limits of block devices.
    ...(hasDevice ? [toRead("/sys")] : []),
  ];
}

/** Longer ones are damaged. */
const LONGEST_CHAIN = 200;

/**
 * Files that the headers of a user's own image name: backing files, and extents in its directory.
 * @throws UnknownReference for what is no path
 */
function pathsBehind(path: string): WantedPath[] {
  const found: WantedPath[] = [];
  for (let at = path; found.length < LONGEST_CHAIN;) {
    const { refersTo, backingName: name } = readImageHeader(at);
    if (refersTo === undefined) break;
    if (refersTo === "data file")
      return [...found, { path: dirname(at), access: at === path ? "write" : "read" }];
    if (name === undefined || /^[\w-]+:/.test(name)) throw new UnknownReference(at);
    at = name.startsWith(sep) ? name : join(dirname(at), name);
    found.push(toRead(at));
  }
  return found;
}

/** An image that refers to something else than a file by its path. */
export class UnknownReference extends Error {}

/** A working directory: qemu creates sockets there, and does not write to what is there, unless that is wanted besides. */
export const pathsOfDirectory = (directory: string): WantedPath[] => [
  { path: directory, access: "create" },
  ...readdirSync(directory).flatMap((name) => {
    const path = join(directory, name);
    const stats = lstatOf(path);
    return stats?.isFile() || stats?.isDirectory() ? [toRead(path)] : [];
  }),
];
