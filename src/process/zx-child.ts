/** A child process of Bun.spawn, as far as zx asks one: `node:child_process` takes as long to load as zx. */
import { EventEmitter } from "node:events";

/** Where zx reads a program's output, which is short: bulk data goes through files and descriptors. */
class ChildOutput extends EventEmitter {
  pipe<T extends { write(bytes: Uint8Array): unknown; end(): unknown }>(to: T): T {
    this.on("data", (bytes: Uint8Array) => to.write(bytes)).once("end", () => to.end());
    return to;
  }

  /** Everything at once, as a character may be in two pieces. */
  async read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const bytes = Buffer.from(await Bun.readableStreamToArrayBuffer(stream));
    if (bytes.length > 0) this.emit("data", bytes);
    this.emit("end");
  }
}

/** Emits `exit`, and `close` once its output has ended, too. */
export class ZxChild extends EventEmitter {
  readonly pid: number;
  readonly stdin = null;
  readonly stdout: ChildOutput | null = null;
  readonly stderr: ChildOutput | null = null;
  readonly #process: Bun.Subprocess;

  /** @throws a system error if the program cannot be started */
  constructor(argv: string[], options: Bun.SpawnOptions.OptionsObject<any, any, any>) {
    super();
    const child = Bun.spawn(argv, options);
    this.#process = child;
    this.pid = child.pid;
    const ends: Promise<unknown>[] = [
      child.exited.then(() => this.emit("exit", child.exitCode, child.signalCode)),
    ];
    const follow = (stream: unknown): ChildOutput | null => {
      if (!(stream instanceof ReadableStream)) return null;
      const output = new ChildOutput();
      ends.push(output.read(stream));
      return output;
    };
    this.stdout = follow(child.stdout);
    this.stderr = follow(child.stderr);
    void Promise.all(ends).then(() => this.emit("close", child.exitCode, child.signalCode));
  }

  unref(): void {
    this.#process.unref();
  }
}
