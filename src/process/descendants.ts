import { readFileSync } from "node:fs";

/** Processes that a process has started, and those that they have, by /proc (proc(5), `children`); best effort. */
export function listDescendants(pid: number): number[] {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1");
  } catch {
    // It has exited, or the kernel has no such file.
    return [];
  }
  const children = text.split(" ").filter(Boolean).map(Number);
  return children.flatMap((child) => [child, ...listDescendants(child)]);
}

/** @param pid negative: a process group @returns whether it was there */
export function signalProcess(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}

/** Has it ended, and its parent not asked for its status yet (proc_pid_stat(5))? Signals find such a process. */
export function isZombie(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // Its name, in parentheses, is in front of its state.
    return stat.slice(stat.lastIndexOf(")")).startsWith(") Z");
  } catch {
    return false;
  }
}
