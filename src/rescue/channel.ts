import type { Socket } from "bun";
import { log } from "../lib/log.ts";
import { withSocket } from "../qmp/client.ts";
import { LineSplitter, LineTooLong } from "../qmp/protocol.ts";

/** Limit of one question or answer. */
const MAX_LINE_BYTES = 64 << 10;

/** Line-based channel to a program in the rescue, on one of its virtio-serial ports. */
export class Channel implements Disposable {
  #socket: Socket | undefined;
  readonly #splitter = new LineSplitter("the rescue", MAX_LINE_BYTES);

  /** @param hear receives each line that the rescue sends */
  static async connect(path: string, hear: (line: string) => void = () => {}): Promise<Channel> {
    const channel = new Channel();
    await withSocket(path, async (unix) => {
      channel.#socket = await Bun.connect({
        unix,
        socket: {
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
      });
    });
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
