import { readFileSync } from "node:fs";
import { hasErrno } from "../lib/errors.ts";
import { describeHolder, findFileHolder } from "../process/holders.ts";

/** Why no program can listen on a port. */
export type PortProblem = "taken" | "denied" | "not local";

export function findPortProblem(host: string, port: number): PortProblem | undefined {
  try {
    Bun.listen({ hostname: host, port, exclusive: true, socket: { data: () => {} } }).stop(true);
    return undefined;
  } catch (error) {
    return portProblemOf(error);
  }
}

export async function findUdpPortProblem(host: string, port: number): Promise<PortProblem | undefined> {
  try {
    (await Bun.udpSocket({ hostname: host, port })).close();
    return undefined;
  } catch (error) {
    return portProblemOf(error);
  }
}

const portProblemOf = (error: unknown): PortProblem =>
  hasErrno(error, "EADDRINUSE") ? "taken" : hasErrno(error, "EACCES", "EPERM") ? "denied" : "not local";

/** First free TCP port from `port` on that is not among `others`; undefined if a hundred are in use. */
export function nextFreePort(host: string, port: number, others: readonly number[]): number | undefined {
  for (let next = port; next < Math.min(port + 100, 65536); next++)
    if (!others.includes(next) && findPortProblem(host, next) === undefined) return next;
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
