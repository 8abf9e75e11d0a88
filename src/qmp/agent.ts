import { closeSync, constants, openSync } from "node:fs";
import type { Socket } from "bun";
import { hasErrno, VmError } from "../lib/errors.ts";
import { flock, LOCK_EX, LOCK_NB } from "../process/libc.ts";
import { withSocket } from "./client.ts";
import { LineTooLong, parseObject, readRefusal } from "./protocol.ts";

/** Stands before an answer to guest-sync-delimited; in JSON it cannot be (qemu's docs/interop/qemu-ga). */
const SENTINEL = 0xff;
const NEWLINE = 0x0a;

/** qemu-ga keeps 16 MiB of a program's output and of its errors each; base64 makes 4 bytes of 3. */
const MAX_LINE_BYTES = 64 << 20;

/** A sync id must be told from an answer that a client before us did not wait for. */
const MAX_ID = 2 ** 31;

/** How long the agent may think about one command. */
const ANSWER_MS = 60_000;

/** How long other commands may talk to the agent before us: a freeze lasts 10 s at most. */
const QUEUE_MS = 15_000;
const RETRY_MS = 20;

/** The file beside the agent's socket that is locked by whoever talks to it. */
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

/** Nobody is there, or nobody who has time. */
export class AgentSilence extends VmError {
  constructor() {
    super("unavailable", "the guest agent does not answer");
  }
}

/** Another command of ours talks to it all the time. */
export class AgentBusy extends VmError {
  constructor() {
    super("busy", "another command talks to the guest agent", { hint: "try again later" });
  }
}

/** Where the file system has no locks, commands go without: most do not meet. */
function takesLock(fd: number): boolean {
  try {
    return flock(fd, LOCK_EX | LOCK_NB);
  } catch {
    return true;
  }
}

/**
 * Waits until no other command of ours talks to the agent: qemu serves one client, and leaves the next one waiting
 * without a word, which looks as if the agent were silent.
 * @returns the lock's descriptor
 */
async function lockLine(socket: string, queueMs: number, over: AbortSignal | undefined): Promise<number> {
  const { O_CREAT, O_NOFOLLOW, O_RDWR } = constants;
  const fd = openSync(agentLock(socket), O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
  const deadline = Date.now() + queueMs;
  try {
    while (!takesLock(fd)) {
      if (over?.aborted) throw lineClosed();
      if (Date.now() >= deadline) throw new AgentBusy();
      await Bun.sleep(RETRY_MS);
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return fd;
}

/** A conversation with qemu-ga in the guest: one command at a time. */
export class GuestAgent implements Disposable {
  #socket: Socket | undefined;
  #unsent = Buffer.alloc(0);
  #pieces: Uint8Array[] = [];
  #length = 0;
  /** Answers count only from the sentinel on, and that before the answer to our own sync. */
  #synced = false;
  #syncId: number | undefined = Math.floor(Math.random() * MAX_ID);
  #waiting: PromiseWithResolvers<string> | undefined;
  #over = false;
  #lock: number | undefined;

  /**
   * Waits for its turn among our own commands, connects, and clears away what an earlier client left in the line.
   * @param timeoutMs how long the agent may stay silent
   * @param over ends the conversation, whatever is being waited for
   * @throws AgentSilence when it stays silent, AgentBusy when another command does not come to an end
   */
  static async connect(
    path: string,
    timeoutMs: number,
    over?: AbortSignal,
    queueMs = QUEUE_MS,
  ): Promise<GuestAgent> {
    const agent = new GuestAgent();
    over?.addEventListener("abort", () => agent[Symbol.dispose](), { once: true });
    try {
      agent.#lock = await lockLine(path, queueMs, over);
      if (over?.aborted) throw lineClosed();
      await agent.#open(path);
      agent.#send(Buffer.of(SENTINEL));
      await agent.#ask("guest-sync-delimited", { id: agent.#syncId }, timeoutMs);
      agent.#syncId = undefined;
      return agent;
    } catch (error) {
      agent[Symbol.dispose]();
      throw hasErrno(error, "ENOENT", "ECONNREFUSED") ? lineClosed() : error;
    }
  }

  /** Runs one command and gives its `return` value. @throws AgentError when it is refused */
  execute(command: string, args?: Record<string, unknown>, timeoutMs = ANSWER_MS): Promise<unknown> {
    return this.#ask(command, args, timeoutMs);
  }

  [Symbol.dispose](): void {
    this.#socket?.end();
    this.#end();
  }

  async #open(path: string): Promise<void> {
    const socket = {
      data: (_socket: Socket, bytes: Uint8Array) => this.#receive(bytes),
      drain: () => this.#flush(),
      close: () => this.#end(),
      error: () => this.#end(),
    };
    await withSocket(path, async (unix) => {
      this.#socket = await Bun.connect({ unix, socket });
    });
  }

  async #ask(
    command: string,
    args: Record<string, unknown> | undefined,
    timeoutMs: number,
  ): Promise<unknown> {
    if (this.#over) throw lineClosed();
    this.#waiting = Promise.withResolvers<string>();
    const { promise, reject } = this.#waiting;
    this.#send(Buffer.from(`${JSON.stringify({ execute: command, arguments: args })}\n`));
    const timer = setTimeout(() => reject(new AgentSilence()), timeoutMs);
    try {
      const reply = parseObject(await promise, "the guest agent");
      if (typeof reply.error !== "object" || reply.error === null) return reply.return;
      const refusal = readRefusal(reply.error as Record<string, unknown>);
      throw new AgentError(command, refusal.class, refusal.desc);
    } finally {
      clearTimeout(timer);
    }
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

  /** One answer is one line; a big one comes in many pieces. */
  #receive(bytes: Uint8Array): void {
    let fresh = bytes;
    if (!this.#synced) {
      const at = bytes.lastIndexOf(SENTINEL);
      if (at < 0) return;
      this.#synced = true;
      fresh = bytes.subarray(at + 1);
    }
    this.#length += fresh.length;
    if (this.#length > MAX_LINE_BYTES) return this.#refuse();
    // Bun uses its buffer again.
    this.#pieces.push(fresh.slice());
    if (!fresh.includes(NEWLINE)) return;
    const line = Buffer.concat(this.#pieces.splice(0)).toString("utf8");
    this.#length = 0;
    // An agent that was not waited for answers that client's sync first.
    if (this.#syncId !== undefined && !isReplyTo(this.#syncId, line)) this.#synced = false;
    else this.#waiting?.resolve(line);
  }

  #refuse(): void {
    this.#pieces = [];
    this.#end(new LineTooLong("the guest agent", MAX_LINE_BYTES));
    this.#socket?.terminate();
  }

  #end(reason: Error = lineClosed()): void {
    this.#over = true;
    this.#waiting?.promise.catch(() => {});
    this.#waiting?.reject(reason);
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

const lineClosed = (): VmError => new VmError("io", "the guest went off, or its agent's line was closed");
