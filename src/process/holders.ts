import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** A process that has a file or socket open. */
export interface Holder {
  pid: number;
  /** Its short name (`comm`). */
  name: string;
}

/**
 * Finds a process that has one of these targets open: a path, or `socket:[INODE]` (proc(5)). Only root can inspect other
 * users' processes.
 */
export function findFileHolder(targets: ReadonlySet<string>): Holder | undefined {
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`))
        if (targets.has(readlinkSync(`/proc/${pid}/fd/${fd}`)))
          return { pid: Number(pid), name: readFileSync(`/proc/${pid}/comm`, "utf8").trim() };
    } catch {
      // It has exited, or belongs to another user.
    }
  }
  return undefined;
}

/** Finds a process that has a tap device open (drivers/net/tun.c, tun_chr_show_fdinfo). Only root can inspect other users'. */
export function findTapHolder(device: string): Holder | undefined {
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`)) {
        if (readlinkSync(`/proc/${pid}/fd/${fd}`) !== "/dev/net/tun") continue;
        const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8");
        if (info.split("\n").includes(`iff:\t${device}`))
          return { pid: Number(pid), name: readFileSync(`/proc/${pid}/comm`, "utf8").trim() };
      }
    } catch {
      // It has exited, or belongs to another user.
    }
  }
  return undefined;
}

/**
 * Finds all processes that have one of these files open, or `directory` as working directory (proc(5), fd and cwd).
 * @param name prefix of the short name
 */
export function findUsers(targets: ReadonlySet<string>, directory: string, name: string): Holder[] {
  return readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const comm = readFileSync(`/proc/${pid}/comm`, "utf8").trim();
      if (!comm.startsWith(name)) return [];
      const uses =
        readlinkSync(`/proc/${pid}/cwd`) === directory ||
        readdirSync(`/proc/${pid}/fd`).some((fd) => targets.has(readlinkSync(`/proc/${pid}/fd/${fd}`)));
      return uses ? [{ pid: Number(pid), name: comm }] : [];
    } catch {
      // It has exited, or belongs to another user.
      return [];
    }
  });
}

/**
 * Finds processes that were given this argument (proc(5), cmdline), also those of other users and namespaces.
 * @param name prefix of the short name
 */
export function findByArgument(name: string, argument: string): Holder[] {
  return readdirSync("/proc").flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return [];
    const pid = Number(entry);
    const comm = readName(pid);
    return comm?.startsWith(name) === true && readArgv(pid).includes(argument) ? [{ pid, name: comm }] : [];
  });
}

/** Whether a process with one of these short names runs; undefined if this user does not see those of others. */
export function runsProcess(names: readonly string[]): boolean | undefined {
  if (readName(1) === undefined) return undefined;
  return readdirSync("/proc").some((pid) => /^\d+$/.test(pid) && names.includes(readName(Number(pid)) ?? ""));
}

/** Short name of a process; undefined if it has exited. */
function readName(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  } catch {
    return undefined;
  }
}

/** Working directory of a process; undefined if it has exited or is not accessible. */
export function readCwd(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return undefined;
  }
}

/** Command line of a process; empty if it has exited or is not accessible. */
export function readArgv(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").slice(0, -1);
  } catch {
    return [];
  }
}

export const describeHolder = ({ pid, name }: Holder): string => `${name} (pid ${pid})`;
