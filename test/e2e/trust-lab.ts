/** The laboratory for hostile directories: a sandbox, canaries outside, and problems after a command. */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { UnixSocketListener } from "bun";
import { binary, PATIENCE_SECONDS, Sandbox } from "./harness.ts";
import { listing, seed } from "./tools.ts";

/** Commands that read a directory as data, also one of another user. */
export const READING: readonly string[] = [
  "status",
  "status --json",
  "list",
  "list --json",
  "snapshots",
  "snapshots --json",
  "snapshots show S0",
  "snapshots diff S0 S1",
  "verify",
  "verify --all --deep",
  "verify --json S0",
  "config",
  "config --json",
  "doctor",
  "doctor --report",
  "console --log",
  "prune --keep-last=1 --dry-run",
  "timer --cron",
  "-h",
  "__complete bash 'vm restore ' ''",
  "__complete fish 'vm job '",
];

/** CPU time; a busy machine may take longer. */
const MAX_SECONDS = 10;
const MAX_BYTES = 300e6;
/** Of a command's output; a console's log may have any length. */
const MAX_OUTPUT_BYTES = 1 << 20;

const CANARIES = ["secret", "victim", "victims/file", "victims/.vm.json"];

/** Numbers from 0 to 1, the same for the same text and seed (mulberry32). */
export function random(text: string): () => number {
  let state = Number(BigInt.asUintN(32, BigInt(Bun.hash(`${seed} ${text}`))));
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

async function take(stream: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const piece of stream) {
    text += decoder.decode(piece, { stream: true });
    if (text.length > MAX_OUTPUT_BYTES) break;
  }
  return text;
}

export class TrustLab implements Disposable {
  readonly box = new Sandbox();
  /** An in-place VM with the snapshots S0 and S1, to be copied. */
  readonly base: string = join(this.box.top, "base");
  readonly outside: string = join(this.box.top, "outside");
  readonly #listener: UnixSocketListener<undefined>;
  readonly #before: string[];
  /** Does the filesystem record access times? */
  readonly tellsReading: boolean;
  #connections = 0;

  constructor() {
    chmodSync(this.box.top, 0o755);
    mkdirSync(this.base, { mode: 0o700 });
    mkdirSync(this.outside);
    this.#fill();
    writeFileSync(join(this.outside, "program"), `#!/bin/sh\n: >'${this.box.top}/ran'\n`, { mode: 0o755 });
    this.#listener = Bun.listen({
      unix: join(this.outside, "sock"),
      socket: { data: () => {}, open: () => void this.#connections++ },
    });
    this.#setTimes();
    readFileSync(join(this.outside, "secret"));
    this.tellsReading = statSync(join(this.outside, "secret")).atimeMs > 1000;
    this.#before = listing(this.outside);
    this.#setTimes();
  }

  async create(): Promise<void> {
    const words = "--inplace --port= -D VIRT=1M @create G @backup S0 first @backup S1".split(" ");
    await this.box.ok(words, { cwd: this.base });
  }

  [Symbol.dispose](): void {
    this.#listener.stop(true);
    // Trees may be deeper than PATH_MAX.
    execFileSync("rm", ["-rf", this.box.top]);
    this.box[Symbol.dispose]();
  }

  #fill(): void {
    rmSync(join(this.outside, "victims"), { recursive: true, force: true });
    mkdirSync(join(this.outside, "victims"));
    for (const name of CANARIES) writeFileSync(join(this.outside, name), `CANARY ${name}\n`);
  }

  /** Access times before change times: the next read sets them (mount(8), relatime). */
  #setTimes(): void {
    for (const name of CANARIES) utimesSync(join(this.outside, name), 1, 2);
  }

  /** Problems outside since the last check. */
  checkOutside(): string[] {
    const wrong: string[] = [];
    for (const name of CANARIES) {
      const stats = lstatSync(join(this.outside, name), { throwIfNoEntry: false });
      if (stats?.mtimeMs !== 2000) wrong.push(`${name} outside was changed`);
      else if (this.tellsReading && stats.atimeMs !== 1000) wrong.push(`${name} outside was read`);
    }
    const now = listing(this.outside);
    if (now.join("\n") !== this.#before.join("\n")) wrong.push(`outside is ${now.join(", ")}`);
    if (existsSync(join(this.box.top, "ran"))) wrong.push("a program was run");
    if (this.#connections > 0) wrong.push("a socket outside was connected to");
    this.#connections = 0;
    rmSync(join(this.box.top, "ran"), { force: true });
    // Those of another carrier are not told again.
    if (wrong.length > 0) this.#fill();
    this.#setTimes();
    return wrong;
  }

  /** Runs a command. @returns problems with it, and outside */
  async tryCommand(line: string, cwd: string, home = this.box.home): Promise<string[]> {
    // A child of this process would be counted with this process' memory (vfork(2)).
    const usage = join(this.box.top, "usage");
    const measured = `/usr/bin/time -q -f '%M %U %S' -o '${usage}' timeout -s KILL ${PATIENCE_SECONDS}`;
    const child = Bun.spawn(["bash", "-c", `exec ${measured} '${binary}' ${line}`], {
      cwd,
      env: { ...this.box.env(), HOME: home, NO_COLOR: "1" },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [stdout, stderr] = await Promise.all([take(child.stdout), take(child.stderr)]);
    const status = await child.exited;
    const [kibibytes = NaN, ...seconds] = readFileSync(usage, "utf8")
      .trim()
      .split("\n")
      .at(-1)!
      .split(" ")
      .map(Number);
    const bytes = kibibytes * 1024;
    const cpuSeconds = seconds.reduce((sum, value) => sum + value, 0);
    // Output of the guest is printed, without control sequences.
    const isGuests = line.startsWith("console");
    const output = (isGuests ? stdout.replaceAll("\r", "") : stdout) + stderr;
    const wrong: string[] = [];
    if (status > 128) wrong.push(`killed by signal ${status - 128}`);
    if (status === 70) wrong.push(`status 70: ${stderr.trim()}`);
    if (!(bytes <= MAX_BYTES)) wrong.push(`${(bytes / 1e6).toFixed(0)} MB of memory`);
    if (cpuSeconds > MAX_SECONDS) wrong.push(`${cpuSeconds.toFixed(1)} s of processor time`);
    const control = /[^\P{Cc}\n\t]|[\u200e\u200f\u202a-\u202e\u2066-\u2069]/u.exec(output);
    if (control) {
      const around = output.slice(Math.max(0, control.index - 40), control.index + 20);
      wrong.push(`a control character: ${JSON.stringify(around)}`);
    }
    if (output.includes("CANARY")) wrong.push("shows a file outside");
    if (/^vm: all is well/m.test(isGuests ? stderr : output))
      wrong.push("a line that is not the program's own");
    if (/^\s+at .*:\d+/m.test(stderr)) wrong.push(`a stack trace: ${stderr}`);
    return [...wrong, ...this.checkOutside()].map((text) => `vm ${line}: ${text}`);
  }
}
