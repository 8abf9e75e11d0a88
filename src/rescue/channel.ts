import type { Socket } from "bun";
import { withShortPath } from "../qmp/client.ts";
import { LineSplitter } from "../qmp/protocol.ts";

/** Lines to and from a program in the rescue, by one of its virtio-serial ports. */
export class Channel implements Disposable {
  #socket: Socket | undefined;
  readonly #splitter = new LineSplitter();

  /** @param hear takes each line that the rescue sends */
  static async connect(path: string, hear: (line: string) => void = () => {}): Promise<Channel> {
    const channel = new Channel();
    await withShortPath(path, async (unix) => {
      channel.#socket = await Bun.connect({
        unix,
        socket: {
          data: (_socket, bytes) => {
            for (const line of channel.#splitter.push(bytes)) hear(line);
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
