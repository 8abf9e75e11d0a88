import { readFileSync } from "node:fs";
import { describeHolder, findFileHolder } from "../process/holders.ts";

export function isPortFree(host: string, port: number): boolean {
  try {
    Bun.listen({ hostname: host, port, exclusive: true, socket: { data: () => {} } }).stop(true);
    return true;
  } catch {
    return false;
  }
}

export async function isUdpPortFree(host: string, port: number): Promise<boolean> {
  try {
    (await Bun.udpSocket({ hostname: host, port })).close();
    return true;
  } catch {
    return false;
  }
}

/** First free TCP port from `port` on that is not among `others`; undefined if a hundred are in use. */
export function nextFreePort(host: string, port: number, others: readonly number[]): number | undefined {
  for (let next = port; next < Math.min(port + 100, 65536); next++)
    if (!others.includes(next) && isPortFree(host, next)) return next;
  return undefined;
}

/** The process that listens on a TCP port: `remote-viewer (pid 123)`. */
export function findPortHolder(port: number): string | undefined {
  const inodes = ["/proc/net/tcp", "/proc/net/tcp6"].flatMap((file) => listenerInodes(file, port));
  if (inodes.length === 0) return undefined;
  const holder = findFileHolder(new Set(inodes.map((inode) => `socket:[${inode}]`)));
  return holder && describeHolder(holder);
}

/** Inodes of sockets in state LISTEN (0A) on a port (proc(5)). */
function listenerInodes(file: string, port: number): string[] {
  let table: string;
  try {
    table = readFileSync(file, "utf8");
  } catch {
    return [];
  }
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return table
    .split("\n")
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((columns) => columns[1]?.endsWith(suffix) && columns[3] === "0A")
    .map((columns) => columns[9]!);
}
