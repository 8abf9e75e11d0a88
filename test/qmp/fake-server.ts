import type { Socket, UnixSocketListener } from "bun";
import { LineSplitter } from "../../src/qmp/protocol.ts";

export const GREETING = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } }, capabilities: [] } };

export interface Request {
  execute: string;
  arguments?: Record<string, unknown>;
  id: number;
}

type Reply = object | string | undefined;

/** A QMP server that answers as a test defines. */
export class FakeQmp implements Disposable {
  readonly requests: Request[] = [];
  readonly #listener: UnixSocketListener<undefined>;
  #client: Socket | undefined;
  #unsent = Buffer.alloc(0);

  /**
   * @param answer the reply to a command (its id is added), undefined for none; a string is sent literally
   */
  constructor(
    path: string,
    answer: (request: Request, server: FakeQmp) => Reply = () => ({ return: {} }),
    greeting: object | string = GREETING,
  ) {
    const splitter = new LineSplitter("the client", 64 << 20);
    this.#listener = Bun.listen<undefined>({
      unix: path,
      socket: {
        open: (socket) => {
          this.#client = socket;
          this.send(greeting);
        },
        drain: () => this.#flush(),
        data: (_socket, bytes) => {
          for (const line of splitter.push(bytes)) {
            const request = JSON.parse(line) as Request;
            this.requests.push(request);
            const reply = answer(request, this);
            if (typeof reply === "string") this.send(reply);
            else if (reply) this.send({ id: request.id, ...reply });
          }
        },
      },
    });
  }

  /** Sends one message in one piece; a string literally. */
  send(message: object | string): void {
    const text = typeof message === "string" ? message : `${JSON.stringify(message)}\r\n`;
    this.#unsent = Buffer.concat([this.#unsent, Buffer.from(text)]);
    this.#flush();
  }

  #flush(): void {
    const written = this.#client?.write(this.#unsent) ?? 0;
    this.#unsent = this.#unsent.subarray(Math.max(written, 0));
  }

  /** Like a killed process: connections are closed, and nothing listens. */
  die(): void {
    this.#client?.terminate();
    this.#listener.stop(true);
  }

  [Symbol.dispose](): void {
    this.die();
  }
}
