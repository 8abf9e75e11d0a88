import type { Pointer } from "bun:ffi";
import { libc } from "./libc.ts";

/** fcntl(2) */
const F_SETFL = 4;
const F_SETOWN = 8;
const F_SETSIG = 10;
const O_ASYNC = 0o20000;

/**
 * Has the kernel send a process a signal when the other end of a pipe is closed, by the end of this program at the latest.
 * Unlike prctl(2)'s signal at a parent's death, that reaches another user's process, and not only a child's.
 * Best effort: the process may have ended.
 * @param readEnd which that process must have, too: it lives on with it
 */
export function signalAtHangUp(readEnd: number, pid: number, signal: number): void {
  for (const [command, value] of [
    [F_SETSIG, signal],
    [F_SETOWN, pid],
    [F_SETFL, O_ASYNC],
  ] as const)
    if (libc().fcntl(readEnd, command, value as Pointer) === -1) return;
}
