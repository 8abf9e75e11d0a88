import { closeSync, constants, openSync, statfsSync } from "node:fs";
import { resolve } from "node:path";
import { sha256 } from "../lib/crypto.ts";
import { warnOnce } from "../lib/log.ts";
import { realPath } from "../lib/read-file.ts";
import { plain } from "../lib/text.ts";
import { ARCH } from "../machine/arch.ts";
import type { Machine } from "../machine/types.ts";
import { findHelper } from "../qemu/argv.ts";
import {
  pathsOfDirectory,
  pathsOfMachine,
  UnknownReference,
  viewOf,
  type WantedPath,
} from "../qemu/jail-view.ts";
import { FIRST_UID, type Jail } from "../qemu/jail.ts";
import { JAIL_CAPABILITIES, probeJail } from "../qemu/probe-jail.ts";
import { WORK } from "../store/layout.ts";
import { UNCONFINED, type JailRecord } from "../store/mark-types.ts";
import type { Context } from "./context.ts";

/** A jail for one qemu. */
export interface PlannedJail {
  /** Undefined: JAIL=off. */
  jail: Jail | undefined;
  /** What it has, and why not more. */
  record: JailRecord;
}

/** What a qemu is started for. */
export interface JailRequest {
  /** Absent: one that only copies images. */
  machine?: Machine;
  /** Its program; that of the machine by default. */
  program?: string;
  /** qemu's working directory. */
  directory: string;
  /** Further files, behind those of the machine. */
  further?: readonly WantedPath[];
}

/** Files that qemu writes to, besides disks: they exist before it starts, as it creates none later. */
function createWritten(machine: Machine | undefined, directory: string): WantedPath[] {
  if (!machine) return [];
  const { consoleLog, events } = machine.files;
  const ofGuest = events === undefined ? [] : [WORK.eventsIn, WORK.eventsOut, WORK.screen];
  return [consoleLog, ...ofGuest].map((name) => {
    const path = resolve(directory, name);
    createIfMissing(path);
    return { path, access: "write" };
  });
}

function createIfMissing(path: string): void {
  const { O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY } = constants;
  try {
    closeSync(openSync(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600));
  } catch {
    // Something else is there, about which qemu complains.
  }
}

type Traits = Pick<Machine, "nics" | "display" | "extraArgs" | "shares">;
const NO_GUEST: Traits = { nics: [], display: { kind: "serial" }, extraArgs: [], shares: [] };

const warnOfRights = (reason: string): void =>
  warnOnce(`JAIL=auto: qemu has no root and namespaces of its own: ${reason}`);

/** Decides on the jail of a qemu by this host and the machine. Loaded only with JAIL=auto. */
export async function planConfined(
  context: Pick<Context, "cacheDirectory">,
  request: JailRequest,
): Promise<PlannedJail> {
  const own = process.getuid!();
  const { machine, directory, further = [] } = request;
  const { program = ARCH[machine!.arch].binary } = request;
  const traits = machine ?? NO_GUEST;
  const loose = findLoose(traits);
  if (loose?.helper) {
    warnOfRights(loose.reason);
    return { jail: undefined, record: { ...UNCONFINED, uid: own, reasons: [loose.reason] } };
  }
  const { bwrap, setpriv, problem, forget } = await probeJail(context.cacheDirectory);
  const noNewPrivileges = bwrap !== undefined || setpriv !== undefined;
  const withoutRoot = (reason: string): PlannedJail => {
    warnOfRights(reason);
    return {
      jail: { root: undefined, setpriv, user: undefined },
      record: { ...UNCONFINED, uid: own, noNewPrivileges: setpriv !== undefined, reasons: [reason] },
    };
  };
  if (bwrap === undefined) return withoutRoot(problem!);
  if (loose) return withoutRoot(loose.reason);
  let paths: WantedPath[];
  try {
    paths = [...(machine ? pathsOfMachine(machine) : []), ...further];
  } catch (error) {
    if (!(error instanceof UnknownReference)) throw error;
    return withoutRoot(`the image ${error.message} refers to something else than a file`);
  }
  const offline = !usesHostNetwork(traits);
  const { user, reasons = [UNSEALED] } = own === 0 ? chooseUser(traits, directory, paths, setpriv) : {};
  return {
    jail: {
      root: {
        bwrap,
        offline,
        forget,
        view: () => {
          const written = createWritten(machine, directory);
          return viewOf(program, [...pathsOfDirectory(directory), ...written, ...paths]);
        },
      },
      setpriv,
      user,
    },
    record: {
      namespaces: true,
      network: offline,
      noNewPrivileges,
      uid: user?.uid ?? own,
      reasons,
    },
  };
}

/** Only root can change the mounts of a jail that runs. */
const UNSEALED = "qemu can create files in the working directory";

/** Arguments of the user's own that may name files and programs of the host, or connect to it. */
const REACHES =
  /\/|^--?(audio|audiodev|chardev|display|gdb|incoming|monitor|mon|net|netdev|nic|parallel|qmp|qmp-pretty|s|serial|smb|spice|vnc)$|\b(vfio|vhost|usb-host|host_device|sdl|gtk|file)/;

/** Why a machine cannot have a root of its own; `helper`: nor do without gaining privileges. */
function findLoose({ extraArgs, shares }: Traits): { reason: string; helper: boolean } | undefined {
  const helper = findHelper(extraArgs);
  if (helper !== undefined)
    return { reason: `further argument of qemu that starts a program: ${plain(helper)}`, helper: true };
  const reach = extraArgs.find((word) => REACHES.test(word));
  if (reach !== undefined)
    return { reason: `further argument of qemu that reaches outside: ${plain(reach)}`, helper: false };
  const whole = shares.find(({ path }) => realPath(path) === "/");
  return whole && { reason: `the share ${plain(whole.tag)} is the whole host`, helper: false };
}

/** Does qemu itself open sockets of the host's network? passt does so in its place; a tap device it only gets. */
const usesHostNetwork = ({ nics, display, extraArgs }: Traits): boolean =>
  nics.some(({ network: { kind } }) => kind === "user" || kind === "tap") ||
  ("at" in display && "port" in display.at) ||
  extraArgs.length > 0;

/** How many users qemus of root have. */
const UIDS = 90_000_000;

/** Types of filesystems on which that capability opens all files (f_type of statfs(2)): those of this host, and no FUSE. */
const LOCAL: ReadonlySet<number> = new Set([
  0xef53, 0x58465342, 0x9123683e, 0x01021994, 0x794c7630, 0x2fc12fc1, 0xf2f52010, 0xca451a4e, 0x73717368,
  0x9660, 0x15013346, 0x4d44, 0x2011bab0, 0x858458f6, 0xe0f5e1e2, 0x62656572, 0x9fa0, 0x1cd1,
]);

/** The user of a qemu that root starts: one for each working directory, but root itself, with few rights, where that cannot do. */
function chooseUser(
  traits: Traits,
  directory: string,
  paths: readonly WantedPath[],
  setpriv: string | undefined,
): { user?: Jail["user"]; reasons?: string[] } {
  const { shares, nics } = traits;
  if (setpriv === undefined) return { reasons: ["qemu runs as root: setpriv (util-linux) is not installed"] };
  const remote = [directory, ...paths.map(({ path }) => path)].find((path) => !isLocal(path));
  if (remote)
    return {
      user: { uid: 0, capabilities: JAIL_CAPABILITIES },
      reasons: [`qemu runs as root: ${plain(remote)} is on a filesystem that other users may not read`],
    };
  const uid = FIRST_UID + (Number.parseInt(sha256(directory).slice(0, 8), 16) % UIDS);
  // The guest's root gives files there owners; mapped ones have them beside.
  const owned = shares.find(({ writable, security }) => writable && security === "none");
  const tap = nics.find(({ network }) => network.kind === "tap");
  const reasons = [
    ...(owned ? [`qemu may change owners in the share ${plain(owned.tag)}`] : []),
    ...(tap ? [`qemu may configure the host's network, for the tap device ${plain(tap.network.name!)}`] : []),
  ];
  const capabilities = [
    ...JAIL_CAPABILITIES,
    ...(owned ? ["chown", "fowner", "fsetid"] : []),
    ...(tap ? ["net_admin"] : []),
    // Forwards of low ports, now or later.
    ...(usesHostNetwork(traits) ? ["net_bind_service"] : []),
  ];
  return { user: { uid, capabilities }, reasons };
}

function isLocal(path: string): boolean {
  try {
    return LOCAL.has(statfsSync(path).type >>> 0);
  } catch {
    // It does not exist: the jail has no such file.
    return true;
  }
}
