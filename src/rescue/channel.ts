import type { Socket } from "bun";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { connectUnix } from "../process/unix-socket.ts";
import { LineSplitter, LineTooLong } from "../qmp/protocol.ts";

/** Limit of one question or answer. */
const MAX_LINE_BYTES = 64 << 10;

/** qemu listens before it greets. */
const CONNECT_MS = 10_000;

/** Line-based channel to a program in the rescue, on one of its virtio-serial ports. */
export class Channel implements Disposable {
  #socket: Socket | undefined;
  readonly #splitter = new LineSplitter("the rescue", MAX_LINE_BYTES);

  /** @param hear receives each line that the rescue sends */
  static async connect(path: string, hear: (line: string) => void = () => {}): Promise<Channel> {
    const channel = new Channel();
    channel.#socket = await connectUnix(
      path,
      {
        data: (socket, bytes) => {
          try {
            for (const line of channel.#splitter.push(bytes)) hear(line);
          } catch (error) {
            if (!(error instanceof LineTooLong)) throw error;
            log.warn(error.message);
            socket.terminate();
          }
        },
        error: () => {},
      },
      CONNECT_MS,
      () => new VmError("io", `cannot connect to ${path}: no answer within ${CONNECT_MS / 1000} s`),
    );
    return channel;
  }

  /** Sends one short line. */
  send(line: string): void {
    this.#socket?.write(`${line}\n`);
  }

  [Symbol.dispose](): void {
    this.#socket?.end();
  }
}
