/** Unix sockets of any path: an address (unix(7)) holds 107 bytes. */
import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { join } from "node:path";
import type { Socket, SocketHandler } from "bun";
import { hasErrno } from "../lib/errors.ts";
import { within } from "../lib/within.ts";
import { isUnixSocketAlive } from "./libc.ts";
import { O_PATH } from "./open-flags.ts";

/** sun_path holds 108 bytes with its end (unix(7)). */
export const MAX_SOCKET_PATH_BYTES = 107;

/** How often a listener's full queue is tried again; there is no event for it. */
const QUEUE_MS = 20;

/** A socket in a directory, by a name that fits an address for whoever is started in that directory. */
export function socketIn(directory: string, name: string): string {
  const path = join(directory, name);
  return Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES ? path : name;
}

/**
 * Lends an address for connecting to a Unix socket. It names this very socket: no link is followed, and its own path may
 * be longer than an address can be.
 * @throws a system error: ENOENT …, ECONNREFUSED for anything but a socket, as connect(2)
 */
export async function withSocketAddress<T>(path: string, use: (address: string) => Promise<T>): Promise<T> {
  const fd = openSync(path, O_PATH | constants.O_NOFOLLOW);
  try {
    if (!fstatSync(fd).isSocket()) throw notListening("it is no socket", path);
    return await use(`/proc/self/fd/${fd}`);
  } finally {
    closeSync(fd);
  }
}

const notListening = (why: string, path: string): Error =>
  Object.assign(new Error(`ECONNREFUSED: ${why}, connect '${path}'`), { code: "ECONNREFUSED" });

/**
 * Connects, and waits for a place in the listener's queue, which is short: Bun takes a full one (EAGAIN) for a dead
 * socket. Whatever is lost on the way, the waiting ends.
 * @param late makes the error for when that takes longer than `limitMs`
 * @throws a system error: see above, and ECONNREFUSED when no process listens
 */
export function connectUnix(
  path: string,
  socket: SocketHandler<undefined>,
  limitMs: number,
  late: () => Error,
): Promise<Socket> {
  const deadline = Date.now() + limitMs;
  return withSocketAddress(path, async (unix) => {
    for (;;) {
      const connecting = Bun.connect<undefined>({ unix, socket });
      try {
        return await within(connecting, Math.max(deadline - Date.now(), QUEUE_MS), late);
      } catch (error) {
        void connecting.then(
          (tooLate) => tooLate.terminate(),
          () => {},
        );
        // The listener closed while we stood in its queue.
        if (hasErrno(error, "ECONNRESET")) throw notListening("its listener is gone", path);
        if (!hasErrno(error, "ECONNREFUSED") || !isUnixSocketAlive(unix)) throw error;
        if (Date.now() > deadline) throw late();
      }
      await Bun.sleep(QUEUE_MS);
    }
  });
}

/**
 * Does a process hold this socket? A connection that is accepted or queued is proof, also when its one client is
 * another: the kernel refuses once the process is dead.
 */
export async function isListening(path: string): Promise<boolean> {
  try {
    return await withSocketAddress(path, async (address) => isUnixSocketAlive(address));
  } catch (error) {
    if (hasErrno(error, "ENOENT", "ENOTDIR", "ECONNREFUSED")) return false;
    throw error;
  }
}
