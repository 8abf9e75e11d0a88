import { closeSync, constants, openSync, statfsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { sha256 } from "../lib/crypto.ts";
import { warnOnce } from "../lib/log.ts";
import { realPath } from "../lib/read-file.ts";
import { plain } from "../lib/text.ts";
import { ARCH } from "../machine/arch.ts";
import type { Machine } from "../machine/types.ts";
import {
  pathsOfDirectory,
  pathsOfMachine,
  UnknownReference,
  viewOf,
  type WantedPath,
} from "../qemu/jail-view.ts";
import { FIRST_UID, type Jail, type JailRoot } from "../qemu/jail.ts";
import { findProgramProblem, JAIL_CAPABILITIES, probeJail } from "../qemu/probe-jail.ts";
import { WORK } from "../store/layout.ts";
import { UNCONFINED, type JailRecord } from "../store/mark-types.ts";
import type { Context } from "./context.ts";
import { findLoose } from "./find-loose.ts";

/** A jail for one qemu. */
export interface PlannedJail {
  /** Undefined: JAIL=off. */
  jail: Jail | undefined;
  /** What it has, and why not more: corrected if bwrap fails. */
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

/** Directories of that file that hold nothing of root's alone. */
const PUBLIC: ReadonlySet<string> = new Set(["/run/systemd/resolve", "/run/resolvconf"]);

/** A host that joins another network replaces the file with its name servers: only its directory shows the new one. */
function pathsOfResolver(own: number): WantedPath[] {
  const directory = dirname(realPath("/etc/resolv.conf") ?? "/etc/resolv.conf");
  // Where qemu reads what its own user may read anyway, or nothing else.
  return own !== 0 || PUBLIC.has(directory) ? [{ path: directory, access: "read" }] : [];
}

/** In the working directory, each with a mount of its own: bwrap needs 0.1 s for 200, and 2 s for 1000. */
const MOST_FILES = 200;

type Traits = Pick<Machine, "nics" | "display" | "extraArgs" | "shares">;
const NO_GUEST: Traits = { nics: [], display: { kind: "serial" }, extraArgs: [], shares: [] };

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
  if (loose && own === 0) warnOnce(`qemu runs as root, unconfined: ${loose.reason}`);
  if (loose?.helper) {
    return { jail: undefined, record: { ...UNCONFINED, uid: own, reasons: [loose.reason] } };
  }
  const { bwrap, setpriv, landlock, problem, forget } = await probeJail(context.cacheDirectory);
  const noNewPrivileges = bwrap !== undefined || setpriv !== undefined;
  const recordWithoutRoot = (reason: string): JailRecord => ({
    ...UNCONFINED,
    uid: own,
    noNewPrivileges: setpriv !== undefined,
    reasons: [reason],
  });
  const withoutRoot = (reason: string): PlannedJail => ({
    jail: { root: undefined, setpriv, user: undefined },
    record: recordWithoutRoot(reason),
  });
  if (bwrap === undefined) return withoutRoot(problem!);
  if (loose) return withoutRoot(loose.reason);
  if (pathsOfDirectory(directory).length > MOST_FILES)
    return withoutRoot(`over ${MOST_FILES} files in ${plain(directory)}`);
  const broken = await findProgramProblem(program, bwrap, context.cacheDirectory);
  if (broken !== undefined) return withoutRoot(broken);
  const offline = !usesHostNetwork(traits);
  let paths: WantedPath[];
  try {
    paths = [
      // Those of a rescue whose state is saved are relative.
      ...(machine ? pathsOfMachine(machine) : []).map((item) => ({
        ...item,
        path: resolve(directory, item.path),
      })),
      ...(offline ? [] : pathsOfResolver(own)),
      ...further,
    ];
  } catch (error) {
    if (!(error instanceof UnknownReference)) throw error;
    return withoutRoot(`the image ${error.message} refers to something else than a file`);
  }
  const { user, reasons = landlock ? [] : [UNSEALED] } =
    own === 0 ? chooseUser(traits, directory, paths, setpriv) : {};
  const record: JailRecord = {
    namespaces: true,
    network: offline,
    noNewPrivileges,
    landlock,
    uid: user?.uid ?? own,
    reasons,
  };
  const root: JailRoot = {
    bwrap,
    offline,
    landlock,
    onFailure: (reason) => {
      forget();
      warnOnce(`qemu has no root and namespaces of its own: ${reason}`);
      Object.assign(record, recordWithoutRoot(reason));
    },
    view: () => {
      const written = createWritten(machine, directory);
      return viewOf(program, [...pathsOfDirectory(directory), ...written, ...paths]);
    },
  };
  return { jail: { root, setpriv, user }, record };
}

/** Without Landlock: only root can change the mounts of a jail that runs. */
const UNSEALED = "qemu can create files in the working directory";

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
