import { closeSync, constants, fstatSync, openSync } from "node:fs";
import type { Socket } from "bun";
import { commandLine } from "../lib/command-line.ts";
import { hasErrno, VmError } from "../lib/errors.ts";
import { saysDenied, saysNoRoom } from "../lib/program-messages.ts";
import { isUnixSocketAlive } from "../process/libc.ts";
import { O_PATH } from "../process/open-flags.ts";
import { interruption } from "../process/signals.ts";
import {
  LineSplitter,
  parseQmpLine,
  type QmpErrorReply,
  type QmpEvent,
  type QmpMessage,
} from "./protocol.ts";

/** sun_path holds 108 bytes with its end (unix(7)). */
export const MAX_SOCKET_PATH_BYTES = 107;

/** The longest message of qemu's own that is known of (a long list of block nodes) has a few MiB. */
const MAX_LINE_BYTES = 64 << 20;
/** Events that are kept until a listener is added; further ones are dropped. */
const MAX_EARLY_EVENTS = 1000;

/** qemu refused a command. */
export class QmpError extends VmError {
  constructor(
    command: string,
    readonly reply: QmpErrorReply,
  ) {
    super(saysNoRoom(reply.desc) ? "cannotCreate" : "io", `qemu refused ${command}: ${reply.desc}`, {
      reason: saysDenied(reply.desc) ? "denied" : undefined,
    });
  }
}

/** After a stop signal a qemu that answers nothing for this long is given up: it hangs. */
const HURRY_MS = 5000;

interface Waiting {
  command: string;
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

/** One QMP conversation. qemu serves one client at a time on a socket. */
export class QmpClient {
  readonly #splitter = new LineSplitter("qemu", MAX_LINE_BYTES);
  readonly #waiting = new Map<number, Waiting>();
  readonly #listeners: ((event: QmpEvent) => void)[] = [];
  /** Events that came before anybody listened. */
  #early: QmpEvent[] = [];
  #over = false;
  /** Of qemu, as its greeting tells: `7.2.22`. */
  version = "";
  #socket: Socket | undefined;
  #unsent = Buffer.alloc(0);
  #nextId = 1;
  #greeted = false;
  #limit: ReturnType<typeof setTimeout> | undefined;
  #ready = Promise.withResolvers<void>();
  readonly #closed = Promise.withResolvers<void>();
  /** Settles when the conversation is over, whoever ended it. */
  readonly closed: Promise<void> = this.#closed.promise;

  /**
   * Connects and negotiates.
   * @param timeoutMs how long the greeting may take: a socket whose one client is somebody else stays silent
   * @throws a system error when nobody listens; VmError 75 when the socket is busy
   */
  static async connect(path: string, timeoutMs = 5000): Promise<QmpClient> {
    const client = new QmpClient();
    client.#ready.promise.catch(() => {});
    const deadline = Date.now() + timeoutMs;
    await withSocket(path, async (short) => {
      client.#socket = await patiently({ path, short }, deadline, () =>
        Bun.connect({
          unix: short,
          socket: {
            data: (_socket, bytes) => client.#receive(bytes),
            drain: () => client.#flush(),
            close: () => client.#end(),
            error: () => client.#end(),
          },
        }),
      );
    });
    interruption.addEventListener("abort", client.#hurry);
    if (interruption.aborted) client.#hurry();
    const timer = setTimeout(() => client.#ready.reject(silent(path)), timeoutMs);
    try {
      await client.#ready.promise;
    } catch (error) {
      client.close();
      throw error;
    } finally {
      clearTimeout(timer);
    }
    return client;
  }

  /** Runs one command and gives its `return` value. */
  execute(command: string, args?: Record<string, unknown>): Promise<unknown> {
    const reply = this.#queue(command, args);
    this.#flush();
    return reply;
  }

  /**
   * Runs commands one after the other. They are sent by a single write(2): if this process is killed, qemu has all of
   * them or none. (Those that it has not begun when the connection ends it drops: qemu's monitor/qmp.c.)
   * @returns their replies, in the same order
   */
  executeTogether(commands: readonly (readonly [command: string, args?: object])[]): Promise<unknown>[] {
    const replies = commands.map(([command, args]) => this.#queue(command, args as Record<string, unknown>));
    this.#flush();
    return replies;
  }

  #queue(command: string, args?: Record<string, unknown>): Promise<unknown> {
    if (this.#over) return Promise.reject(conversationOver());
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#waiting.set(id, { command, resolve, reject });
    const line = Buffer.from(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    this.#unsent = Buffer.concat([this.#unsent, line]);
    if (interruption.aborted) this.#hurry();
    return promise;
  }

  /** Hears every event; the first listener also those that came before it. */
  onEvent(listener: (event: QmpEvent) => void): void {
    this.#listeners.push(listener);
    for (const event of this.#early.splice(0)) listener(event);
  }

  close(): void {
    this.#socket?.end();
    this.#end();
  }

  /** A stop signal came: what is cleaned up yet must not wait for ever. */
  readonly #hurry = (): void => {
    clearTimeout(this.#limit);
    if (this.#over || (this.#greeted && this.#waiting.size === 0)) return;
    this.#limit = setTimeout(() => {
      this.#end(interruption.reason as Error);
      this.#socket?.terminate();
    }, HURRY_MS);
  };

  #flush(): void {
    if (!this.#socket || this.#unsent.length === 0) return;
    const written = this.#socket.write(this.#unsent);
    this.#unsent = this.#unsent.subarray(written < 0 ? this.#unsent.length : written);
  }

  #receive(bytes: Uint8Array): void {
    if (this.#over) return;
    try {
      for (const line of this.#splitter.push(bytes)) this.#hear(parseQmpLine(line));
      if (interruption.aborted) this.#hurry();
    } catch (error) {
      // Whatever listens there, it does not speak QMP.
      this.#end(error as Error);
      this.#socket?.terminate();
    }
  }

  #hear(message: QmpMessage | undefined): void {
    if (message?.kind === "greeting") {
      this.version = message.version;
      this.#greeted = true;
      this.execute("qmp_capabilities").then(() => this.#ready.resolve(), this.#ready.reject);
    } else if (message?.kind === "event") {
      if (this.#listeners.length === 0 && this.#early.length < MAX_EARLY_EVENTS)
        this.#early.push(message.event);
      for (const listener of this.#listeners) listener(message.event);
    } else if (message) {
      const waiting = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if (message.kind === "reply") waiting?.resolve(message.value);
      else waiting?.reject(new QmpError(waiting.command, message.error));
    }
  }

  #end(gone: Error = conversationOver()): void {
    this.#over = true;
    clearTimeout(this.#limit);
    interruption.removeEventListener("abort", this.#hurry);
    this.#ready.reject(gone);
    for (const { reject } of this.#waiting.values()) reject(gone);
    this.#waiting.clear();
    this.#closed.resolve();
  }
}

const silent = (path: string): VmError =>
  new VmError("busy", `qemu does not answer on ${path}`, {
    hint: `try again; one that hangs is ended, as by a power cut: ${commandLine("stop", "--force")}`,
  });
const conversationOver = (): VmError => new VmError("io", "qemu has closed the conversation");

/** How often a full queue is tried again; there is no event for it. */
const QUEUE_MS = 20;

/** Waits for a place in a listener's queue, which is short: Bun takes a full one (EAGAIN) for a dead socket. */
async function patiently<T>(
  { path, short }: Record<"path" | "short", string>,
  deadline: number,
  connect: () => Promise<T>,
): Promise<T> {
  for (;;) {
    const { promise, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => reject(silent(path)), Math.max(deadline - Date.now(), QUEUE_MS));
    try {
      return await Promise.race([connect(), promise]);
    } catch (error) {
      if (!hasErrno(error, "ECONNREFUSED") || !isUnixSocketAlive(short)) throw error;
      if (Date.now() > deadline) throw silent(path);
    } finally {
      clearTimeout(timer);
    }
    await Bun.sleep(QUEUE_MS);
  }
}

/**
 * Lends the address of a Unix socket, for connecting. It names this very socket: no link is followed, and its own path
 * may be longer than an address can be (unix(7)).
 * @throws a system error: ENOENT …, ECONNREFUSED for anything but a socket, as connect(2)
 */
export async function withSocket<T>(path: string, use: (address: string) => Promise<T>): Promise<T> {
  const fd = openSync(path, O_PATH | constants.O_NOFOLLOW);
  try {
    if (!fstatSync(fd).isSocket()) throw notListening(path);
    return await use(`/proc/self/fd/${fd}`);
  } finally {
    closeSync(fd);
  }
}

const notListening = (path: string): Error =>
  Object.assign(new Error(`ECONNREFUSED: it is no socket, connect '${path}'`), { code: "ECONNREFUSED" });
