import { accessSync, constants, existsSync, statSync } from "node:fs";
import { dirname } from "node:path";
import type { Settings } from "../../config/schema.ts";
import { reasonOf } from "../../lib/errors.ts";
import { PACKAGES } from "../../lib/packages.ts";
import { formatSize } from "../../lib/size.ts";
import { exec, findProgram, isBusybox } from "../../process/exec.ts";
import { freeBytes } from "../../store/files.ts";
import type { Context } from "../../vm/context.ts";
import { findCheckMedia } from "../../vm/media.ts";
import { NOT_INSTALLED, probeJail } from "../../qemu/probe-jail.ts";
import { checkProgram, oneLine, type Check } from "./check.ts";

/** Programs of the host, except qemu and those for building a rescue. */
export async function checkPrograms(context: Context, settings: Settings): Promise<Check[]> {
  const media = findCheckMedia(context);
  return [
    checkProgram({ name: "qemu-img", use: "disks", needed: true, thing: "qemu-img" }),
    checkProgram({ name: "pigz", use: "snapshots", needed: true, thing: "pigz" }),
    checkCoreutils(),
    checkSetpriv(),
    await checkJail(settings),
    checkProgram({ name: "bash", use: "jobs' hooks, settings with conditions", thing: "bash" }),
    checkProgram({ name: "ssh", use: "logging in to guests", thing: "ssh" }),
    checkProgram({ name: "scp", use: "copying to and from guests", thing: "ssh" }),
    checkProgram({ name: "remote-viewer", use: "viewing guests on this host", thing: "remote-viewer" }),
    await checkSwtpm(settings.TPM !== ""),
    checkProgram({ name: "restic", use: "snapshots off the machine", thing: "restic" }),
    checkProgram({ name: "fusermount3", use: "reading a repository in place", thing: "fuse" }),
    checkProgram({ name: "sshfs", use: "mounting files of a snapshot", thing: "sshfs" }),
    ...(media === undefined
      ? []
      : [{ name: "check-media", state: "ok", needed: false, use: "external media", detail: media } as const]),
  ];
}

/** @param needed by the configured VM */
async function checkSwtpm(needed: boolean): Promise<Check> {
  const found = checkProgram({ name: "swtpm", use: "guests with a TPM", needed, thing: "swtpm" });
  if (found.state !== "ok") return found;
  const { stdout } = await exec(["swtpm", "--version"], { anyStatus: true });
  const version = /version (\d[\w.]*)/.exec(stdout)?.[1];
  return version === undefined ? found : { ...found, detail: `${found.detail}, ${version}` };
}

const COREUTILS = ["cat", "cp", "dd", "sha256sum"];

function checkCoreutils(): Check {
  const common = { name: "coreutils", needed: true, use: "snapshots, disks" };
  const absent = COREUTILS.filter((name) => findProgram(name) === undefined);
  const packages = PACKAGES.coreutils;
  if (absent.length > 0) return { ...common, state: "missing", detail: `no ${absent.join(", ")}`, packages };
  if (!isBusybox(findProgram("dd")!)) return { ...common, state: "ok", detail: findProgram("dd")! };
  return { ...common, state: "limited", detail: "dd is that of busybox; restore needs GNU dd", packages };
}

function checkSetpriv(): Check {
  const found = checkProgram({
    name: "setpriv",
    use: "killing qemu after kill -9",
    thing: "setpriv",
  });
  if (found.state !== "ok" || !isBusybox(found.detail)) return found;
  return {
    ...found,
    state: "limited",
    detail: "that of busybox lacks the option",
    packages: PACKAGES.setpriv,
  };
}

/** What confines the qemus that this user starts, or could with JAIL=auto, and why not more. Starts a program in a jail. */
export async function checkJail({ JAIL }: Pick<Settings, "JAIL">): Promise<Check> {
  const common = { name: "jail", needed: false, use: "confining qemu" };
  const { bwrap, setpriv, landlock, problem } = await probeJail(undefined);
  const user = process.getuid!() !== 0 ? "" : setpriv === undefined ? ", as root" : ", a user of its own";
  const further = landlock ? ", Landlock" : "";
  const unused = JAIL === "off" ? "; not used: JAIL=off" : "";
  if (bwrap !== undefined)
    return { ...common, state: "ok", detail: `${bwrap}: namespaces, own root${further}${user}${unused}` };
  const rest = setpriv === undefined ? "nothing confines qemu" : "no new privileges only";
  return {
    ...common,
    state: problem === NOT_INSTALLED ? "missing" : "limited",
    detail: oneLine(unused ? problem! : `${rest}: ${problem}`),
    ...(problem === NOT_INSTALLED && { packages: PACKAGES.bwrap }),
  };
}

interface CheckedPlace {
  name: string;
  path: string;
  use: string;
  needed: boolean;
  /** Threshold for "little". */
  bytes: number;
  /** May be created if missing. */
  made: boolean;
}

/** Checks space and permissions of the directories that the program writes to, without writing. */
export function checkPlaces(context: Context, { INPLACE, PROFILES }: Settings): Check[] {
  const places: CheckedPlace[] = [
    {
      name: "tmpdir",
      path: context.tmpdir,
      use: "working files",
      needed: !INPLACE,
      bytes: 1 << 30,
      made: false,
    },
    {
      name: "profiles",
      path: PROFILES,
      use: "rescue profiles, VMs",
      needed: false,
      bytes: 1 << 29,
      made: true,
    },
  ];
  const cache = context.cacheDirectory;
  if (cache !== undefined)
    places.push({
      name: "cache",
      path: cache,
      use: "saved rescues",
      needed: false,
      bytes: 1 << 29,
      made: true,
    });
  return places.map(checkPlace);
}

/** The directory itself, or its nearest existing parent. */
const existing = (path: string): string =>
  existsSync(path) || path === dirname(path) ? path : existing(dirname(path));

function checkPlace({ name, path, use, needed, bytes, made }: CheckedPlace): Check {
  const common = { name, needed, use };
  const nearest = made ? existing(path) : path;
  try {
    if (!statSync(nearest).isDirectory()) throw new Error(`${nearest} is no directory`);
    accessSync(nearest, constants.W_OK | constants.X_OK);
    const free = freeBytes(nearest);
    const detail = `${path}: ${formatSize(free)} free`;
    return free < bytes
      ? { ...common, state: "limited", detail: `${detail}, which is little` }
      : { ...common, state: "ok", detail };
  } catch (error) {
    const where = nearest === path ? "" : `${nearest}: `;
    return { ...common, state: "missing", detail: `${path}: ${where}${reasonOf(error)}` };
  }
}
