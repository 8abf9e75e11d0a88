/** Unix sockets with paths of any length: an address holds 107 bytes (unix(7)). */
import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { join } from "node:path";
import type { Socket, SocketHandler, UnixSocketOptions } from "bun";
import { hasErrno } from "../lib/errors.ts";
import { within } from "../lib/within.ts";
import { isUnixSocketAlive } from "./libc.ts";
import { O_PATH } from "./open-flags.ts";

/** sun_path has 108 bytes, including the NUL (unix(7)). */
export const MAX_SOCKET_PATH_BYTES = 107;

/** Interval for retrying while a listener's queue is full; there is no event for it. */
const QUEUE_MS = 20;

/** Path of a socket in a directory; if too long for an address, its name, relative to the directory. */
export function socketIn(directory: string, name: string): string {
  const path = join(directory, name);
  return Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES ? path : name;
}

/**
 * Calls `use` with an address of a Unix socket, through /proc/self/fd: symlinks are not followed, and the path may be longer
 * than an address.
 * @throws a system error: ENOENT …, ECONNREFUSED for anything but a socket, as connect(2)
 */
export async function withSocketAddress<T>(path: string, use: (address: string) => Promise<T>): Promise<T> {
  const fd = openSync(path, O_PATH | constants.O_NOFOLLOW);
  try {
    if (!fstatSync(fd).isSocket()) throw notListening("it is not a socket", path);
    return await use(`/proc/self/fd/${fd}`);
  } finally {
    closeSync(fd);
  }
}

const notListening = (why: string, path: string): Error =>
  Object.assign(new Error(`ECONNREFUSED: ${why}, connect '${path}'`), { code: "ECONNREFUSED" });

/**
 * Connects, and retries while the listener's queue is full: Bun reports that (EAGAIN) as ECONNREFUSED.
 * @param late creates the error after `limitMs`
 * @throws a system error: see above, and ECONNREFUSED if no process listens
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
        // The listener was closed while this connection was queued.
        if (hasErrno(error, "ECONNRESET")) throw notListening("its listener was closed", path);
        if (!hasErrno(error, "ECONNREFUSED") || !isUnixSocketAlive(unix)) throw error;
        if (Date.now() > deadline) throw late();
      }
      await Bun.sleep(QUEUE_MS);
    }
  });
}

/** Takes over a connected socket; its types do not say that Bun can. */
export const adoptSocket = (fd: number, socket: SocketHandler<undefined>): Promise<Socket> =>
  Bun.connect<undefined>({ fd, socket } as unknown as UnixSocketOptions<undefined>);

/**
 * Does a process listen on this socket? True as well if it already serves another client: the connection is queued. Once
 * the process is dead, the kernel refuses.
 */
export async function isListening(path: string): Promise<boolean> {
  try {
    return await withSocketAddress(path, async (address) => isUnixSocketAlive(address));
  } catch (error) {
    if (hasErrno(error, "ENOENT", "ENOTDIR", "ECONNREFUSED")) return false;
    throw error;
  }
}
