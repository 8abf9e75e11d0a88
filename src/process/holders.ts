import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** A process that has something open. */
export interface Holder {
  pid: number;
  /** Its short name (`comm`). */
  name: string;
}

/**
 * Who has a descriptor that leads to one of these targets: a path, or `socket:[INODE]` (proc(5)). Without
 * root only the caller's own processes can be looked into.
 */
export function findFileHolder(targets: ReadonlySet<string>): Holder | undefined {
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`))
        if (targets.has(readlinkSync(`/proc/${pid}/fd/${fd}`)))
          return { pid: Number(pid), name: readFileSync(`/proc/${pid}/comm`, "utf8").trim() };
    } catch {
      // Ended meanwhile, or not ours.
    }
  }
  return undefined;
}

/**
 * Every process that has one of these files open, or was started in `directory` and is still there (proc(5), fd and cwd).
 * @param name what its short name begins with
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
      // Ended meanwhile, or not ours.
      return [];
    }
  });
}

/** The words a process was started with; empty when it has ended or is not to be seen. */
export function readArgv(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").slice(0, -1);
  } catch {
    return [];
  }
}

export const describeHolder = ({ pid, name }: Holder): string => `${name} (pid ${pid})`;
