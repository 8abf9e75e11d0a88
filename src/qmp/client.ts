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

/** The longest message of qemu's own that is known of (a long list of block nodes) has a few MiB. */
const MAX_LINE_BYTES = 64 << 20;
/** Events that are kept until a listener is added; further ones are dropped. */
const MAX_EARLY_EVENTS = 1000;

interface Waiting {
  command: string;
  shape: CommandShape;
  limit: ReturnType<typeof setTimeout>;
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
  /** Why the conversation is over. */
  #over: Error | undefined;
  #replyMs = Number.POSITIVE_INFINITY;
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
   * @param limitMs how long the greeting may take: a socket whose one client is another stays silent
   * @param replyMs how long a reply may take at most, also where its command may take longer
   * @throws a system error when no process listens; QmpTimeout (75) when the socket is busy
   */
  static async connect(path: string, limitMs = 5000, replyMs?: number): Promise<QmpClient> {
    const client = new QmpClient();
    client.#ready.promise.catch(() => {});
    const late = (): Error => new QmpTimeout(`qemu does not answer on ${path}`);
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
   * @throws QmpError when qemu refuses it, QmpTimeout when it does not answer, QmpDisconnect when it has gone
   */
  execute<Name extends CommandName>(command: Name, ...[args]: Rest<Name>): Promise<ReplyOf<Name>> {
    const reply = this.#queue(command, QMP_COMMANDS[command], args);
    this.#flush();
    return reply as Promise<ReplyOf<Name>>;
  }

  /** Runs a command that the program itself does not use: for scripts and tests. */
  executeUntyped(command: string, args?: object): Promise<any> {
    const reply = this.#queue(command, { limitMs: QMP_COMMANDS["query-status"].limitMs }, args);
    this.#flush();
    return reply;
  }

  /**
   * Runs commands one after the other. They are sent by a single write(2): if this process is killed, qemu has all of
   * them or none. (Those that it has not begun when the connection ends it drops: qemu's monitor/qmp.c.)
   * @returns their replies, in the same order
   */
  executeTogether(commands: readonly QmpCommand[]): Promise<unknown>[] {
    const replies = commands.map(([command, args]) => this.#queue(command, QMP_COMMANDS[command], args));
    this.#flush();
    return replies;
  }

  #queue(command: string, shape: CommandShape, args: unknown): Promise<unknown> {
    if (this.#over) return Promise.reject(this.#over);
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const limitMs = Math.min(shape.limitMs, this.#replyMs);
    const limit = setTimeout(() => this.#giveUp(command, limitMs), limitMs);
    this.#waiting.set(id, { command, shape, limit, resolve, reject });
    this.#unsent = Buffer.concat([this.#unsent, Buffer.from(formatCommand(command, args, id))]);
    if (interruption.aborted) this.#hurry();
    return promise;
  }

  /** What is not answered now may be answered later, and what waits behind it, too: none of it is wanted then. */
  #giveUp(command: string, limitMs: number): void {
    this.#end(new QmpTimeout(`qemu has not answered ${command} within ${limitMs / 1000} s`));
    this.#socket?.terminate();
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

  /** After a stop signal a qemu that answers nothing for some time is given up: it hangs. */
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
    this.#over ??= reason;
    clearTimeout(this.#limit);
    interruption.removeEventListener("abort", this.#hurry);
    this.#ready.reject(this.#over);
    for (const { limit, reject } of this.#waiting.values()) {
      clearTimeout(limit);
      reject(this.#over);
    }
    this.#waiting.clear();
    this.#closed.resolve();
  }
}
