/** A small Linux that loads its disks when told to. */
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { defaultCpu, resolveAccel } from "../../src/qemu/accel.ts";
import type { Guests } from "../../test/guests/build.ts";

const GUEST = `#!/bin/sh
stty -echo
cp /in/disk-load /tmp/
for block in /sys/block/*; do
	serial=$(cat "$block/serial" "$block/device/serial" 2>/dev/null || tail -c +5 "$block/device/vpd_pg80" 2>/dev/null)
	[ -z "$serial" ] || ln -sf "/dev/\${block##*/}" "/tmp/$(echo $serial)"
done
echo READY
while read -r disk words; do /tmp/disk-load "/tmp/$disk" $words || echo FAILED; done
`;

/** As `uname -m`, if it is the guests'. */
const HOST_ARCH = process.arch === "x64" ? "x86_64" : process.arch;

/** Directory that the guests share: their script and the program that loads disks. */
export async function prepareShare(scratch: string): Promise<string> {
  const share = join(scratch, "in");
  mkdirSync(share);
  const program = join(share, "disk-load");
  await Bun.$`cc -O2 -static -o ${program} ${join(import.meta.dir, "disk-load.c")}`;
  writeFileSync(join(share, "guest.sh"), GUEST);
  chmodSync(program, 0o755);
  return share;
}

/** What is to be done to a disk. */
export interface Load {
  operation: "read" | "write" | "sync";
  pattern: "seq" | "random" | "once";
  blockBytes: number;
  jobs: number;
  depth: number;
  /** Limits; 0: none. */
  milliseconds: number;
  count: number;
}

export interface LoadResult {
  requests: number;
  seconds: number;
  /** With a flush at the end. */
  flushedSeconds: number;
}

const running = new Set<Bun.Subprocess>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

export class LoadGuest {
  readonly #child: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #lines: AsyncGenerator<string>;

  private constructor(argv: string[]) {
    this.#child = Bun.spawn(argv, { stdin: "pipe", stdout: "pipe", stderr: "inherit" });
    running.add(this.#child);
    this.#lines = readLines(this.#child.stdout);
  }

  /** @param disks arguments of qemu */
  static async start(guests: Guests, share: string, disks: readonly string[]): Promise<LoadGuest> {
    const { accel } = resolveAccel("auto", "x86_64", HOST_ARCH);
    const { kernel, initrd, append } = guests;
    const words =
      `-nodefaults -no-user-config -display none -no-reboot -smp 2 -m 384M -serial stdio -cpu ${defaultCpu("x86_64", accel)} ` +
      `-accel ${accel === "tcg" ? "tcg,thread=multi" : accel} -device virtio-9p-pci,fsdev=in,mount_tag=in`;
    const guest = new LoadGuest([
      "qemu-system-x86_64",
      "-fsdev",
      `local,id=in,path=${share},readonly=on,security_model=none`,
      ...words.split(" "),
      "-kernel",
      kernel,
      "-initrd",
      initrd,
      "-append",
      `${append} no_timer_check`,
      ...disks,
    ]);
    await guest.#until((line) => line === "READY");
    return guest;
  }

  async load(serial: string, load: Load): Promise<LoadResult> {
    const { operation, pattern, blockBytes, jobs, depth, milliseconds, count } = load;
    const words = [serial, operation, pattern, blockBytes, jobs, depth, milliseconds, count];
    this.#child.stdin.write(`${words.join(" ")}\n`);
    await this.#child.stdin.flush();
    const line = await this.#until((text) => text === "FAILED" || /^\d+ \d+ \d+$/.test(text));
    if (line === "FAILED") throw new Error(`disk-load ${words.join(" ")} failed`);
    const [requests, ns, flushedNs] = line.split(" ").map(Number) as [number, number, number];
    return { requests, seconds: ns / 1e9, flushedSeconds: flushedNs / 1e9 };
  }

  async end(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
    running.delete(this.#child);
  }

  async #until(isWanted: (line: string) => boolean): Promise<string> {
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done === true) throw new Error("the guest has ended");
      if (isWanted(value)) return value;
      if (value !== "") console.error(`  guest: ${value}`);
    }
  }
}

async function* readLines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const piece of stream) {
    const lines = (rest + decoder.decode(piece, { stream: true })).split("\n");
    rest = lines.pop()!;
    for (const line of lines) yield line.replaceAll("\r", "");
  }
}
