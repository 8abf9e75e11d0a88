import { closeSync, constants, openSync } from "node:fs";
import type { Socket } from "bun";
import { hasErrno, VmError } from "../lib/errors.ts";
import { within } from "../lib/within.ts";
import { flock, LOCK_EX, LOCK_NB } from "../process/libc.ts";
import { connectUnix } from "../process/unix-socket.ts";
import { formatCommand } from "./commands.ts";
import { LineTooLong, parseObject, readRefusal } from "./protocol.ts";
import { isObject } from "./shape.ts";

/** Stands before an answer to guest-sync-delimited; in JSON it cannot be (qemu's docs/interop/qemu-ga). */
const SENTINEL = 0xff;
const NEWLINE = 0x0a;

/** qemu-ga keeps 16 MiB of a program's output and of its errors each; base64 makes 4 bytes of 3. */
const MAX_LINE_BYTES = 64 << 20;

/** A sync id must be told from an answer that a client before us did not wait for. */
const MAX_ID = 2 ** 31;

/** How long the agent may think about one command. */
const ANSWER_MS = 60_000;

/** How long other commands may talk to the agent before us: file systems are frozen for 10 s at most, and then thawed. */
const QUEUE_MS = 30_000;
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

/** A conversation with qemu-ga in the guest: one command after the other, in the order in which they are asked for. */
export class GuestAgent implements Disposable {
  #socket: Socket | undefined;
  #unsent = Buffer.alloc(0);
  #pieces: Uint8Array[] = [];
  #length = 0;
  /** The line may hold a reply that is no longer, or never was, waited for: a sync goes before the next command. */
  #stale = true;
  /** What comes before the reply to this sync is not for us. */
  #syncId: number | undefined;
  #waiting: (PromiseWithResolvers<string> & { onlySync: boolean }) | undefined;
  /** Settles when the commands before have been answered, or given up. */
  #turn: Promise<unknown> = Promise.resolve();
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
      const socket = {
        data: (_socket: Socket, bytes: Uint8Array) => agent.#receive(bytes),
        drain: () => agent.#flush(),
        close: () => agent.#end(),
        error: () => agent.#end(),
      };
      agent.#socket = await connectUnix(path, socket, timeoutMs, () => new AgentSilence());
      await agent.#exchange(undefined, timeoutMs);
      return agent;
    } catch (error) {
      agent[Symbol.dispose]();
      throw hasErrno(error, "ENOENT", "ECONNREFUSED") ? lineClosed() : error;
    }
  }

  /**
   * Runs one command, when those before it have been answered.
   * @returns its `return` value
   * @throws AgentError when it is refused, AgentSilence when it is not answered in time
   */
  execute(command: string, args?: Record<string, unknown>, timeoutMs = ANSWER_MS): Promise<unknown> {
    const reply = this.#turn.then(() => this.#ask(command, args, timeoutMs));
    this.#turn = reply.catch(() => {});
    return reply;
  }

  [Symbol.dispose](): void {
    this.#socket?.end();
    this.#end();
  }

  async #ask(command: string, args: object | undefined, timeoutMs: number): Promise<unknown> {
    const reply = parseObject(
      await this.#exchange(formatCommand(command, args), timeoutMs),
      "the guest agent",
    );
    if (!isObject(reply.error)) return reply.return;
    const refusal = readRefusal(reply.error);
    throw new AgentError(command, refusal.class, refusal.desc);
  }

  /**
   * Sends a request, and a sync before it where that is needed: by one write, so that the agent has the request also if we
   * give up waiting for its sync.
   * @param request undefined: the sync alone
   * @returns the line that answers it
   */
  async #exchange(request: string | undefined, timeoutMs: number): Promise<string> {
    if (this.#over) throw lineClosed();
    const waiting = { ...Promise.withResolvers<string>(), onlySync: request === undefined };
    this.#waiting = waiting;
    const sync = this.#stale ? this.#newSync() : [];
    this.#stale = true;
    this.#send(Buffer.concat([...sync, Buffer.from(request ?? "")]));
    try {
      const line = await within(waiting.promise, timeoutMs, () => new AgentSilence());
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

  /** One reply is one line; a big one comes in many pieces. */
  #receive(bytes: Uint8Array): void {
    let rest = bytes;
    for (let end = rest.indexOf(NEWLINE); end >= 0; end = rest.indexOf(NEWLINE)) {
      const line = Buffer.concat([...this.#pieces.splice(0), rest.subarray(0, end)]);
      this.#length = 0;
      rest = rest.subarray(end + 1);
      this.#hear(line);
    }
    if (this.#syncId !== undefined) {
      const at = rest.lastIndexOf(SENTINEL);
      // Nothing before the sentinel is kept.
      if (at < 0 && this.#pieces.length === 0) return;
      if (at >= 0) {
        this.#pieces = [];
        this.#length = 0;
      }
      rest = rest.subarray(Math.max(at, 0));
    }
    if (rest.length === 0) return;
    this.#length += rest.length;
    if (this.#length > MAX_LINE_BYTES) return this.#refuse();
    // Bun uses its buffer again.
    this.#pieces.push(rest.slice());
  }

  #hear(line: Buffer): void {
    if (this.#syncId !== undefined) {
      const at = line.lastIndexOf(SENTINEL);
      // An agent that was not waited for answers earlier requests first.
      if (at < 0 || !isReplyTo(this.#syncId, line.toString("utf8", at + 1))) return;
      this.#syncId = undefined;
      if (!this.#waiting?.onlySync) return;
    }
    this.#waiting?.resolve(line.toString("utf8"));
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
