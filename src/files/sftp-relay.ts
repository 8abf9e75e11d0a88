/**
 * Between sshfs and the SFTP server in the rescue: no symlink of an untrusted snapshot refers to a file of this host. The
 * server is not trusted either: it reads a hostile guest's filesystem.
 */
import { closeSync } from "node:fs";
import type { Socket } from "bun";
import { reasonOf, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { socketPair } from "../process/descriptors.ts";
import { adoptSocket, connectUnix } from "../process/unix-socket.ts";
import { containTarget } from "./contain-link.ts";
import {
  buildDenied,
  buildName,
  readLinkName,
  readPath,
  SFTP,
  SftpStream,
  type Decide,
} from "./sftp-packets.ts";

const CONNECT_MS = 10_000;

/** How the two streams of a connection are changed. */
export interface LinkFilter {
  requests: SftpStream;
  replies: SftpStream;
}

/**
 * Replaces targets of symlinks in replies (see `containTarget`).
 * @param top where the server has the mounted directory: `/run/files/0`
 * @param served that directory, as the guest has it
 */
export function filterLinks(top: string, served: string): LinkFilter {
  /** Requests that a list of names answers, by id; of `readlink` the path. */
  const asked = new Map<number, string | undefined>();
  const onRequest: Decide = (type, id) => {
    if (type === SFTP.readlink)
      return (packet) => {
        asked.set(id, readPath(packet));
        return packet;
      };
    if (type === SFTP.readdir || type === SFTP.realpath) asked.set(id, undefined);
    return "pass";
  };
  const onReply: Decide = (type, id) => {
    const path = asked.get(id);
    // sshfs may have sent a request that is still on its way here: a reply that comes sooner is forged.
    if (type === SFTP.name && !asked.has(id)) throw new VmError("io", "a reply without a request");
    asked.delete(id);
    if (type !== SFTP.name || path === undefined) return "pass";
    return (packet) => {
      const link = path.startsWith(`${top}/`) ? path.slice(top.length + 1) : undefined;
      const target = link === undefined ? undefined : containTarget(link, readLinkName(packet), served);
      return target === undefined ? buildDenied(id) : buildName(id, target);
    };
  };
  return { requests: new SftpStream(onRequest), replies: new SftpStream(onReply) };
}

/** One of the two ends, with what it has not taken yet. While there is something, the other end is not read. */
class End {
  #unsent: Buffer = Buffer.alloc(0);
  #over = false;
  socket: Socket | undefined;
  other: End | undefined;

  constructor(private readonly stream: SftpStream) {}

  readonly handlers = {
    data: (_socket: Socket, bytes: Uint8Array): void => {
      try {
        this.other!.#send(Buffer.concat(this.stream.push(bytes)));
      } catch (error) {
        log.warn(`the mount is ended: the rescue has sent something else: ${reasonOf(error)}`);
        this.close();
      }
    },
    drain: (): void => this.#flush(),
    close: (): void => this.close(),
    error: (): void => this.close(),
  };

  #send(bytes: Buffer): void {
    this.#unsent = this.#unsent.length > 0 ? Buffer.concat([this.#unsent, bytes]) : bytes;
    this.#flush();
  }

  #flush(): void {
    const written = this.socket?.write(this.#unsent) ?? 0;
    this.#unsent = this.#unsent.subarray(written < 0 ? this.#unsent.length : written);
    if (this.#unsent.length > 0) this.other?.socket?.pause();
    else this.other?.socket?.resume();
  }

  /** Both. */
  close(): void {
    if (this.#over) return;
    this.#over = true;
    this.socket?.terminate();
    this.other?.close();
  }
}

/**
 * Connects to the server.
 * @param path of its socket
 * @returns the other end, for sshfs; when one of the two is closed, so is the other
 */
export async function relaySftp(path: string, filter: LinkFilter): Promise<{ fd: number }> {
  const [own, fd] = socketPair();
  const server = new End(filter.replies);
  const client = new End(filter.requests);
  [server.other, client.other] = [client, server];
  try {
    const late = (): VmError => new VmError("io", `cannot connect to ${path}`);
    server.socket = await connectUnix(path, server.handlers, CONNECT_MS, late);
    client.socket = await adoptSocket(own, client.handlers);
  } catch (error) {
    client.close();
    closeSync(fd);
    throw error;
  }
  return { fd };
}
