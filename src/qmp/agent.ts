import { closeSync, constants, openSync } from "node:fs";
import type { Socket } from "bun";
import { hasErrno, VmError } from "../lib/errors.ts";
import { within } from "../lib/within.ts";
import { flock, LOCK_EX, LOCK_NB } from "../process/libc.ts";
import { connectUnix } from "../process/unix-socket.ts";
import { formatCommand } from "./commands.ts";
import { LineTooLong, NEWLINE, parseObject, parseErrorObject } from "./protocol.ts";
import { isObject } from "./shape.ts";

/** Precedes the reply to guest-sync-delimited; invalid in JSON (qemu's qga/qapi-schema.json). */
const SENTINEL = 0xff;

/** qemu-ga captures at most 16 MiB each of a program's stdout and stderr; base64 turns 3 bytes into 4. */
const MAX_LINE_BYTES = 64 << 20;

/** Range of random sync ids, which differ from those of earlier clients. */
const MAX_ID = 2 ** 31;

/** Usual time limit for the reply to the sync of a new connection. */
export const AGENT_MS = 3000;

/** Time limit for the reply to a command. */
const ANSWER_MS = 60_000;

/** Time limit for the lock: another process may hold filesystems frozen for 10 s, and then thaw them. */
const QUEUE_MS = 30_000;
const RETRY_MS = 20;

/** Lock file of the agent's socket. */
export const agentLock = (socket: string): string => `${socket}.lock`;

/** The agent refused a command; `kind` is its error class. */
export class AgentError extends VmError {
  constructor(
    command: string,
    readonly kind: string,
    readonly description: string,
  ) {
    super("io", `the guest agent refused ${command}: ${description}`);
  }
}

/** No reply in time: no agent runs, or it hangs. */
export class AgentTimeout extends VmError {
  constructor() {
    super("unavailable", "the guest agent does not answer");
  }
}

/** The guest closed the port: the agent exited. qemu keeps the socket open. */
export class AgentExited extends VmError {
  constructor() {
    super("io", "the guest agent exited");
  }
}

/** Another process holds the lock. */
export class AgentBusy extends VmError {
  constructor() {
    super("busy", "the guest agent is in use by another process", { hint: "run the command again later" });
  }
}

/** Without locks on the filesystem, the agent is used without one: concurrent use is rare. */
function tryLockAgent(fd: number): boolean {
  try {
    return flock(fd, LOCK_EX | LOCK_NB);
  } catch {
    return true;
  }
}

/**
 * Takes the agent's lock: qemu serves one client, and a second one would wait without a reply, as if the agent did not
 * respond.
 * @returns the lock's descriptor
 */
async function lockAgent(socket: string, queueMs: number, over: AbortSignal | undefined): Promise<number> {
  const { O_CREAT, O_NOFOLLOW, O_RDWR } = constants;
  const fd = openSync(agentLock(socket), O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
  const deadline = Date.now() + queueMs;
  try {
    while (!tryLockAgent(fd)) {
      over?.throwIfAborted();
      if (Date.now() >= deadline) throw new AgentBusy();
      await Bun.sleep(RETRY_MS);
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return fd;
}

/** A connection to qemu-ga in the guest. Commands run one at a time, in the order of the calls. */
export class GuestAgent implements Disposable {
  #socket: Socket | undefined;
  #unsent = Buffer.alloc(0);
  #pieces: Uint8Array[] = [];
  #length = 0;
  /** Replies to abandoned commands may still arrive: the next command is preceded by a sync. */
  #stale = true;
  /** Replies before the reply to this sync are discarded. */
  #syncId: number | undefined;
  #waiting: (PromiseWithResolvers<string> & { onlySync: boolean }) | undefined;
  /** Settles when all previous commands have been answered, or abandoned. */
  #turn: Promise<unknown> = Promise.resolve();
  /** Why the connection is closed. */
  #closed: Error | undefined;
  #forgetOver = (): void => {};
  #lock: number | undefined;

  private constructor(private readonly maxLineBytes: number) {}

  /**
   * Takes the lock, connects, and discards replies to earlier clients.
   * @param timeoutMs time limit for the reply to the sync
   * @param over closes the connection, also while waiting; its reason, an Error, is thrown
   * @param queueMs time limit for the lock
   * @param maxLineBytes of a reply
   * @throws AgentTimeout without a reply, AgentBusy if another process holds the lock
   */
  static async connect(
    path: string,
    timeoutMs: number,
    over?: AbortSignal,
    queueMs = QUEUE_MS,
    maxLineBytes = MAX_LINE_BYTES,
  ): Promise<GuestAgent> {
    const agent = new GuestAgent(maxLineBytes);
    const onOver = (): void => agent.#end(over!.reason as Error);
    over?.addEventListener("abort", onOver, { once: true });
    agent.#forgetOver = () => over?.removeEventListener("abort", onOver);
    try {
      agent.#lock = await lockAgent(path, queueMs, over);
      over?.throwIfAborted();
      const socket = {
        data: (_socket: Socket, bytes: Uint8Array) => agent.#receive(bytes),
        drain: () => agent.#flush(),
        close: () => agent.#end(),
        error: () => agent.#end(),
      };
      agent.#socket = await connectUnix(path, socket, timeoutMs, () => new AgentTimeout());
      await agent.#exchange(undefined, timeoutMs);
      return agent;
    } catch (error) {
      agent[Symbol.dispose]();
      throw hasErrno(error, "ENOENT", "ECONNREFUSED") ? agentClosed() : error;
    }
  }

  /**
   * Runs one command, after all previous ones.
   * @returns its `return` value
   * @throws AgentError if it is refused, AgentTimeout without a reply in time
   */
  execute(command: string, args?: Record<string, unknown>, timeoutMs = ANSWER_MS): Promise<unknown> {
    const reply = this.#turn.then(() => this.#ask(command, args, timeoutMs));
    this.#turn = reply.catch(() => {});
    return reply;
  }

  [Symbol.dispose](): void {
    this.#end();
  }

  async #ask(command: string, args: object | undefined, timeoutMs: number): Promise<unknown> {
    const reply = parseObject(
      await this.#exchange(formatCommand(command, args), timeoutMs),
      "the guest agent",
    );
    if (!isObject(reply.error)) return reply.return;
    const refusal = parseErrorObject(reply.error);
    throw new AgentError(command, refusal.class, refusal.desc);
  }

  /**
   * Sends a request, preceded by a sync if needed. By one write, so that the agent has the request even if its reply to the
   * sync is late.
   * @param request undefined: the sync alone
   * @returns the line of the reply
   */
  async #exchange(request: string | undefined, timeoutMs: number): Promise<string> {
    if (this.#closed) throw this.#closed;
    const waiting = { ...Promise.withResolvers<string>(), onlySync: request === undefined };
    this.#waiting = waiting;
    const sync = this.#stale ? this.#newSync() : [];
    this.#stale = true;
    this.#send(Buffer.concat([...sync, Buffer.from(request ?? "")]));
    try {
      const line = await within(waiting.promise, timeoutMs, () => new AgentTimeout());
      this.#stale = false;
      return line;
    } finally {
      this.#waiting = undefined;
    }
  }

  #newSync(): Buffer[] {
    this.#syncId = Math.floor(Math.random() * MAX_ID);
    return [Buffer.of(SENTINEL), Buffer.from(formatCommand("guest-sync-delimited", { id: this.#syncId }))];
  }

  #send(bytes: Buffer): void {
    this.#unsent = Buffer.concat([this.#unsent, bytes]);
    this.#flush();
  }

  #flush(): void {
    if (!this.#socket || this.#unsent.length === 0) return;
    const written = this.#socket.write(this.#unsent);
    this.#unsent = this.#unsent.subarray(written < 0 ? this.#unsent.length : written);
  }

  /** One reply is one line; a long one arrives in many pieces. */
  #receive(bytes: Uint8Array): void {
    let rest = bytes;
    for (let end = rest.indexOf(NEWLINE); end >= 0; end = rest.indexOf(NEWLINE)) {
      const line = Buffer.concat([...this.#pieces.splice(0), rest.subarray(0, end)]);
      this.#length = 0;
      rest = rest.subarray(end + 1);
      this.#onLine(line);
    }
    if (this.#syncId !== undefined) {
      const at = rest.lastIndexOf(SENTINEL);
      // Bytes before the sentinel are discarded.
      if (at < 0 && this.#pieces.length === 0) return;
      if (at >= 0) {
        this.#pieces = [];
        this.#length = 0;
      }
      rest = rest.subarray(Math.max(at, 0));
    }
    if (rest.length === 0) return;
    this.#length += rest.length;
    if (this.#length > this.maxLineBytes) return this.#refuse();
    // Bun reuses its buffer.
    this.#pieces.push(rest.slice());
  }

  #onLine(line: Buffer): void {
    if (this.#syncId !== undefined) {
      const at = line.lastIndexOf(SENTINEL);
      // Replies to abandoned requests come first.
      if (at < 0 || !isReplyTo(this.#syncId, line.toString("utf8", at + 1))) return;
      this.#syncId = undefined;
      if (!this.#waiting?.onlySync) return;
    }
    this.#waiting?.resolve(line.toString("utf8"));
  }

  #refuse(): void {
    this.#pieces = [];
    this.#end(new LineTooLong("the guest agent", this.maxLineBytes));
    this.#socket?.terminate();
  }

  #end(reason: Error = agentClosed()): void {
    this.#closed ??= reason;
    this.#forgetOver();
    this.#socket?.end();
    this.#waiting?.promise.catch(() => {});
    this.#waiting?.reject(this.#closed);
    if (this.#lock !== undefined) closeSync(this.#lock);
    this.#lock = undefined;
  }
}

function isReplyTo(syncId: number, line: string): boolean {
  try {
    return (JSON.parse(line) as { return?: unknown }).return === syncId;
  } catch {
    return false;
  }
}

const agentClosed = (): VmError =>
  new VmError("io", "connection to the guest agent closed: the guest powered off, or the socket was closed");
