import type { Socket } from "bun";
import { within } from "../lib/within.ts";
import { HURRY_MS, interruption } from "../process/signals.ts";
import { connectUnix } from "../process/unix-socket.ts";
import {
  checkReply,
  QMP_COMMANDS,
  formatCommand,
  type QmpCommand,
  type CommandName,
  type CommandShape,
  type ReplyOf,
  type Rest,
} from "./commands.ts";
import { QmpDisconnect, QmpError, QmpTimeout } from "./errors.ts";
import type { QmpEvent } from "./events.ts";
import { LineSplitter, parseQmpLine, type QmpMessage } from "./protocol.ts";

/** The longest known message, a long list of block nodes, has a few MiB. */
const MAX_LINE_BYTES = 64 << 20;
/** Limit of events kept until a listener is added; further ones are dropped. */
const MAX_EARLY_EVENTS = 1000;

interface Waiting {
  command: string;
  shape: CommandShape;
  limit: ReturnType<typeof setTimeout>;
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

/** A QMP connection. qemu serves one client at a time on a socket. */
export class QmpClient {
  readonly #splitter = new LineSplitter("qemu", MAX_LINE_BYTES);
  readonly #waiting = new Map<number, Waiting>();
  readonly #listeners: ((event: QmpEvent) => void)[] = [];
  /** Events received before a listener was added. */
  #early: QmpEvent[] = [];
  /** Why the connection is closed. */
  #closeReason: Error | undefined;
  #replyMs = Number.POSITIVE_INFINITY;
  /** qemu's version, from its greeting: `7.2.22`. */
  version = "";
  #socket: Socket | undefined;
  #unsent = Buffer.alloc(0);
  #nextId = 1;
  #greeted = false;
  #limit: ReturnType<typeof setTimeout> | undefined;
  #ready = Promise.withResolvers<void>();
  readonly #closed = Promise.withResolvers<void>();
  /** Settles when the connection is closed, by either side. */
  readonly closed: Promise<void> = this.#closed.promise;

  /**
   * Connects and negotiates capabilities.
   * @param limitMs time limit for the greeting: while another client is connected, there is none
   * @param replyMs time limit for replies, in addition to that of the command
   * @throws a system error if no process listens; QmpTimeout (75) if another client is connected
   */
  static async connect(path: string, limitMs = 5000, replyMs?: number): Promise<QmpClient> {
    const client = new QmpClient();
    client.#ready.promise.catch(() => {});
    const late = (): Error => new QmpTimeout(`no QMP greeting on ${path}`);
    const socket = {
      data: (_socket: Socket, bytes: Uint8Array) => client.#receive(bytes),
      drain: () => client.#flush(),
      close: () => client.#end(),
      error: () => client.#end(),
    };
    client.#socket = await connectUnix(path, socket, limitMs, late);
    interruption.addEventListener("abort", client.#hurry);
    if (interruption.aborted) client.#hurry();
    try {
      await within(client.#ready.promise, limitMs, late);
    } catch (error) {
      client.close();
      throw error;
    }
    if (replyMs !== undefined) client.#replyMs = replyMs;
    return client;
  }

  /**
   * Runs one command.
   * @returns its reply
   * @throws QmpError if qemu refuses it, QmpTimeout without a reply in time, QmpDisconnect if the connection is closed
   */
  execute<Name extends CommandName>(command: Name, ...[args]: Rest<Name>): Promise<ReplyOf<Name>> {
    const reply = this.#queue(command, QMP_COMMANDS[command], args);
    this.#flush();
    return reply as Promise<ReplyOf<Name>>;
  }

  /** Runs a command that is not in QMP_COMMANDS: for scripts and tests. */
  executeUntyped(command: string, args?: object): Promise<any> {
    const reply = this.#queue(command, { limitMs: QMP_COMMANDS["query-status"].limitMs }, args);
    this.#flush();
    return reply;
  }

  /**
   * Runs several commands in order. They are sent by a single write(2): if this process is killed, qemu has received all of
   * them or none. (When the connection is closed, it drops those that it has not started: qemu's monitor/qmp.c.)
   * @returns their replies, in the same order
   */
  executeBatch(commands: readonly QmpCommand[]): Promise<unknown>[] {
    const replies = commands.map(([command, args]) => this.#queue(command, QMP_COMMANDS[command], args));
    this.#flush();
    return replies;
  }

  #queue(command: string, shape: CommandShape, args: unknown): Promise<unknown> {
    if (this.#closeReason) return Promise.reject(this.#closeReason);
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const limitMs = Math.min(shape.limitMs, this.#replyMs);
    const limit = setTimeout(() => this.#giveUp(command, limitMs), limitMs);
    this.#waiting.set(id, { command, shape, limit, resolve, reject });
    this.#unsent = Buffer.concat([this.#unsent, Buffer.from(formatCommand(command, args, id))]);
    if (interruption.aborted) this.#hurry();
    return promise;
  }

  /** Closes the connection: late replies to this and to queued commands must not arrive. */
  #giveUp(command: string, limitMs: number): void {
    this.#end(new QmpTimeout(`no reply from qemu to ${command} within ${limitMs / 1000} s`));
    this.#socket?.terminate();
  }

  /** Adds a listener; the first one also gets the events received before. */
  onEvent(listener: (event: QmpEvent) => void): void {
    this.#listeners.push(listener);
    for (const event of this.#early.splice(0)) listener(event);
  }

  close(): void {
    this.#socket?.end();
    this.#end();
  }

  /** After a stop signal, closes the connection to a qemu that does not reply: it hangs. */
  readonly #hurry = (): void => {
    clearTimeout(this.#limit);
    if (this.#closeReason || (this.#greeted && this.#waiting.size === 0)) return;
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
    if (this.#closeReason) return;
    try {
      for (const line of this.#splitter.push(bytes)) this.#onMessage(parseQmpLine(line));
      if (interruption.aborted) this.#hurry();
    } catch (error) {
      // The peer does not speak QMP.
      this.#end(error as Error);
      this.#socket?.terminate();
    }
  }

  #onMessage(message: QmpMessage | undefined): void {
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
      if (!waiting) return;
      this.#waiting.delete(message.id);
      clearTimeout(waiting.limit);
      const { command, shape, resolve, reject } = waiting;
      if (message.kind === "failure") return reject(new QmpError(command, message.error));
      try {
        checkReply(command, shape, message.value);
        resolve(message.value);
      } catch (error) {
        reject(error as Error);
      }
    }
  }

  #end(reason: Error = new QmpDisconnect()): void {
    this.#closeReason ??= reason;
    clearTimeout(this.#limit);
    interruption.removeEventListener("abort", this.#hurry);
    this.#ready.reject(this.#closeReason);
    for (const { limit, reject } of this.#waiting.values()) {
      clearTimeout(limit);
      reject(this.#closeReason);
    }
    this.#waiting.clear();
    this.#closed.resolve();
  }
}
