import type { Socket } from "bun";

interface Request {
  execute: string;
  arguments?: { id?: number };
}

/**
 * qemu-ga with qemu's socket, which serves one client while others wait until it disconnects; the agent
 * answers one request after the other, to the client that is connected then.
 */
export class FakeAgent implements Disposable {
  readonly requests: string[] = [];
  readonly #listener;
  /** The first one is served; the data of the others is not read yet. */
  readonly #clients: { socket: Socket; unread: Uint8Array[] }[] = [];
  #line = "";
  #working: Promise<void> = Promise.resolve();

  /** @param answer the value that a request returns; undefined: the agent does not answer it */
  constructor(path: string, answer: (command: string) => unknown) {
    this.#listener = Bun.listen({
      unix: path,
      socket: {
        open: (socket) => void this.#clients.push({ socket, unread: [] }),
        data: (socket, bytes) => {
          this.#clients.find((client) => client.socket === socket)?.unread.push(bytes.slice());
          this.#read(answer);
        },
        close: (socket) => {
          const at = this.#clients.findIndex((client) => client.socket === socket);
          this.#clients.splice(at, 1);
          this.#read(answer);
        },
      },
    });
  }

  #read(answer: (command: string) => unknown): void {
    for (const bytes of this.#clients[0]?.unread.splice(0) ?? []) {
      // A sentinel discards an unfinished request.
      const text = Buffer.from(bytes).toString("latin1");
      this.#line =
        text.includes("\xff") && this.#line !== "" ? text.slice(text.indexOf("\xff")) : this.#line + text;
      const lines = this.#line.replaceAll("\xff", "").split("\n");
      this.#line = lines.pop()!;
      for (const line of lines)
        this.#working = this.#working.then(() => this.#work(JSON.parse(line), answer));
    }
  }

  async #work({ execute, arguments: args }: Request, answer: (command: string) => unknown): Promise<void> {
    this.requests.push(execute);
    const sync = execute === "guest-sync-delimited";
    const value = sync ? args!.id : await answer(execute);
    if (value === undefined) return;
    const reply = Buffer.from(`${JSON.stringify({ return: value })}\n`);
    this.#clients[0]?.socket.write(sync ? Buffer.concat([Buffer.of(0xff), reply]) : reply);
  }

  [Symbol.dispose](): void {
    this.#listener.stop(true);
  }
}
