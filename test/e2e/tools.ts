/** Helpers of the end-to-end tests. */
import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { binary, checkout, Sandbox, until, type Result, type Running, guests } from "./harness.ts";

/** The program's own requirements. */
export const PROGRAM_TOOLS: string[] = ["qemu-system-x86_64", "qemu-img", "pigz", "bash"];
/** Additional requirements of test/guests/build.ts. */
export const GUEST_TOOLS: string[] = [
  "busybox",
  "cpio",
  "grub-mkimage",
  "mformat",
  "modprobe",
  "nasm",
  "xorriso",
];

export const isRoot: boolean = process.getuid!() === 0;

/** A `describe` that needs programs: without them it fails under CI and is skipped elsewhere, with the reason. */
export function suite(title: string, body: () => void, more: readonly string[] = []): void {
  const path = `${process.env.PATH}:/usr/sbin:/sbin`;
  const programs = [...PROGRAM_TOOLS, ...GUEST_TOOLS, ...more];
  const missing = programs.filter((name) => !Bun.which(name, { PATH: path }));
  if (!existsSync(binary)) missing.push(binary);
  if (missing.length === 0) return describe(title, body);
  const reason = `not installed: ${missing.join(", ")}`;
  if (process.env.CI === "true")
    test(title, () => {
      throw new Error(reason);
    });
  else describe.skip(`${title} (${reason})`, body);
}

/** Test all variations instead of a sample: set by `scripts/soak --only=tests`. */
export const allVariations: boolean = process.env.VM_TEST_ALL === "1";

/** Selects the sample: another one each day; VM_TEST_SEED selects the sample of another day. */
export const seed = Number(process.env.VM_TEST_SEED ?? Math.floor(Date.now() / 86_400_000));

/**
 * Selects the variations that this run tests.
 * @param always how many of the first ones, the most significant, are in every sample
 * @param more how many of the others are, in turn
 * @param turn which turn: where that is not each day, the number of the day would select the same ones each time
 */
export function sampled<T>(variations: readonly T[], always = 1, more = 1, turn = seed): T[] {
  if (allVariations) return [...variations];
  const rest = variations.slice(always);
  const turns = Math.min(more, rest.length);
  const chosen = Array.from({ length: turns }, (_, index) => rest[(turn * turns + index) % rest.length]!);
  return [...variations.slice(0, always), ...chosen];
}

/** Defines one test for each variation in the sample. */
export const testSampled = (variations: Record<string, () => unknown>, always: number, more: number): void =>
  test.each(sampled(Object.entries(variations), always, more))("%s", async (_title, body) => {
    await body();
  });

/** For what takes long: is this day number `turn` of `days`? */
export const isTurn = (turn: number, days = 2): boolean => allVariations || seed % days === turn;

/** How many turns of so many days there have been. */
export const turnsOf = (days: number): number => Math.floor(seed / days);

/** `test` on its day; defines nothing on other days. */
export const testInTurn = (turn: number, days?: number): typeof test =>
  isTurn(turn, days) ? test : ((() => {}) as unknown as typeof test);

/** `suite` on its day. */
export const suiteInTurn = (turn: number, days?: number): typeof suite =>
  isTurn(turn, days) ? suite : () => {};

/** A test that needs root. Without root it is skipped; under CI it fails. */
export const rootTest = isRoot || process.env.CI === "true" ? test : test.skip;

/** A sandbox for small VMs without a display. */
export function smallSandbox(hostName?: string): Sandbox {
  const box = new Sandbox(hostName);
  configure(box, "MEMORY=64M\nCORES=1\nPORT=\nDISKS=(AHCI=16M)\n");
  return box;
}

/** The first disk of an installed guest that has counted one boot, kept beside the guests. */
let installedDisk: Promise<string> | undefined;

async function makeInstalledDisk(): Promise<string> {
  const { installerIso } = await guests();
  const key = createHash("sha256").update(readFileSync(installerIso)).digest("hex").slice(0, 16);
  const path = join(checkout, ".cache/guests", `installed-${key}.img`);
  if (existsSync(path)) return path;
  using box = smallSandbox();
  await box.ok(["@create", "G", installerIso, "@run", "@run"]);
  const beside = `${path}.${process.pid}`;
  copyFileSync(join(box.work, "disk-0.img"), beside);
  renameSync(beside, path);
  return path;
}

/** A VM as after `@create G ISO @run @run`: the guest's data is copied, which needs no boots. */
export async function installed(options: readonly string[] = []): Promise<Sandbox> {
  const disk = await (installedDisk ??= makeInstalledDisk());
  const box = smallSandbox();
  await box.ok([...options, "create", "G", (await guests()).installerIso]);
  copyFileSync(disk, join(box.work, "disk-0.img"));
  rmSync(join(box.work, "FIRSTTIME"));
  return box;
}

/** Writes `~/.config/vm.conf`, or another file there. */
export function configure(box: Sandbox, text: string, name = "vm.conf"): void {
  mkdirSync(join(box.home, ".config"), { recursive: true });
  writeFileSync(join(box.home, ".config", name), text);
}

/** Every file below a directory with its mode and content, without the history of events. */
export function listing(directory: string, below = ""): string[] {
  return names(join(directory, below)).flatMap((name) => {
    if (name === ".local") return [];
    const relative = join(below, name);
    const path = join(directory, relative);
    const stats = lstatSync(path);
    if (stats.isSymbolicLink()) return [`${relative} -> ${readlinkSync(path)}`];
    const line = `${relative} ${mode(path)}`;
    if (stats.isDirectory()) return [line, ...listing(directory, relative)];
    return [stats.isFile() ? `${line} ${sha256(path)}` : line];
  });
}

export const sha256 = (path: string): string =>
  createHash("sha256").update(readFileSync(path)).digest("hex").slice(0, 16);

/** Names in a directory, sorted. */
export const names = (directory: string): string[] => readdirSync(directory).toSorted();

/** The mode in octal: `600`. */
export const mode = (path: string): string => (lstatSync(path).mode & 0o7777).toString(8);

/** Bytes a file occupies. */
export const allocated = (path: string): number => lstatSync(path).blocks * 512;

/** One clear error: the status, one `vm: …` line that is no warning, no stack trace, nothing on stdout. */
export function expectError(result: Result, status: number, message: RegExp): void {
  expect(result.stderr).toMatch(message);
  expect({ status: result.status, signal: result.signal }).toEqual({ status, signal: null });
  expect(result.stderr.match(/^vm: (?!warning)/gm) ?? []).toHaveLength(1);
  expect(result.stderr).not.toMatch(/^\s+at .*:\d+/m);
  expect(result.stderr).not.toMatch(/internal error/);
  expect(result.stdout).toBe("");
}

/** The numbers that the installed guest counted on its disk, one for each boot. */
export const runNumber = (box: Sandbox): number =>
  Number(/^RUN (\d+)$/m.exec(box.console())?.[1] ?? Number.NaN);

/** Starts the program and waits until the guest's console shows `text`. */
export async function startUntil(
  box: Sandbox,
  args: readonly string[],
  text: string,
  options: Parameters<Sandbox["start"]>[1] = {},
): Promise<Running> {
  const running = box.start(args, options);
  let over = false;
  void running.done.then(() => (over = true));
  await until(`"${text}" on the console`, () => {
    if (over) throw new Error(`ended without "${text}" on the console:\n${running.stderr()}`);
    return existsSync(box.path(".work", "console.log")) && box.console().includes(text);
  });
  return running;
}

/** The process id of the sandbox's qemu. */
export async function qemuPid(box: Sandbox): Promise<number> {
  const line = (await box.leftovers()).find((item) => /^\d+ \S*qemu-system/.test(item));
  if (line === undefined) throw new Error("no qemu is running in this sandbox");
  return Number.parseInt(line, 10);
}

/** PF_EXITING (include/linux/sched.h). */
const EXITING = 4;

/**
 * Whether a qemu of this machine is exiting. It has lost its arguments, by which a test finds its own, and has its files
 * and sockets open still.
 */
function isQemuExiting(): boolean {
  return readdirSync("/proc").some((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const [, name = "", rest = ""] = /\((.*)\) (.*)/s.exec(readFileSync(`/proc/${pid}/stat`, "utf8")) ?? [];
      const [state, , , , , , flags] = rest.split(" ");
      return name.startsWith("qemu") && state !== "Z" && state !== "X" && (Number(flags) & EXITING) !== 0;
    } catch {
      // It has ended.
      return false;
    }
  });
}

/** Waits until no process of the sandbox runs, and none of qemu has files open. */
export const untilQuiet = (box: Sandbox): Promise<unknown> =>
  until("the end of every process", async () => (await box.leftovers()).length === 0 && !isQemuExiting());

export interface HeldPort extends Disposable {
  port: number;
}

/** Listens on a TCP port (0: any free one) until disposed of. */
export async function holdPort(port = 0, host = "127.0.0.1"): Promise<HeldPort> {
  const server = createServer();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject).listen({ port, host, exclusive: true }, resolve);
  await promise;
  return { port: (server.address() as AddressInfo).port, [Symbol.dispose]: () => void server.close() };
}

/** A port that was free just now. */
export async function freePort(): Promise<number> {
  using held = await holdPort();
  return held.port;
}

/** The first output of a TCP server, or its answer to `question`; empty if it refuses or sends nothing. */
export function ask(port: number, question = "", host = "127.0.0.1"): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let text = "";
  const socket = connect({ port, host }, () => socket.write(question));
  socket.setTimeout(2000, () => socket.destroy());
  socket.on("data", (bytes) => (text += bytes.toString("latin1")));
  socket.on("error", () => {});
  socket.on("close", () => resolve(text));
  return promise;
}

/** Local addresses (hexadecimal, in the kernel's format) that a process listens on by TCP. */
export function listeners(pid: number): string[] {
  const inodes = new Set(
    readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
      } catch {
        return [];
      }
    }),
  );
  return ["tcp", "tcp6"].flatMap((table) =>
    readFileSync(`/proc/${pid}/net/${table}`, "utf8")
      .split("\n")
      .map((line) => line.trim().split(/\s+/))
      .filter((columns) => columns[3] === "0A" && inodes.has(columns[9] ?? ""))
      .map((columns) => columns[1]!),
  );
}

/** Runs a shell script of the test's own; throws unless it succeeds. */
export async function shell(script: string, cwd: string): Promise<string> {
  return await Bun.$`bash -euc ${script}`.cwd(cwd).quiet().text();
}

/**
 * Runs a command of the program on a terminal (script(1)), and types a passphrase once it is asked for.
 * @returns what the terminal shows; the command must succeed
 */
export async function typePassphrase(box: Sandbox, words: string, passphrase: string): Promise<string> {
  const child = Bun.spawn(["script", "-qec", `${binary} ${words}`, "/dev/null"], {
    cwd: box.host,
    env: { ...box.env(), TERM: "xterm" },
    stdin: "pipe",
    stdout: "pipe",
    stderr: "ignore",
  });
  let shown = "";
  const decoder = new TextDecoder();
  for await (const piece of child.stdout) {
    const text = decoder.decode(piece, { stream: true });
    if (!/assphrase/.test(shown) && /assphrase/.test(shown + text)) {
      child.stdin.write(`${passphrase}\r`);
      child.stdin.flush();
    }
    shown += text;
  }
  expect(await child.exited, shown).toBe(0);
  return shown;
}

/** The root filesystem: another recipe has another path, and the old one is removed. */
export const debianCache = (): string => cacheOf("debian", "install-debian.pre");

/** The disk that the tour installs, likewise. */
export const debianDiskCache = (): string =>
  join(cacheOf("tour-disk", "install-debian.pre", "install-debian.job"), "disk-0.img");

function cacheOf(name: string, ...recipe: string[]): string {
  const all = join(checkout, ".cache", name);
  const hash = createHash("sha256");
  for (const file of recipe) hash.update(readFileSync(join(checkout, "scripts/debian", file)));
  const key = hash.digest("hex").slice(0, 16);
  mkdirSync(join(all, key), { recursive: true, mode: 0o700 });
  for (const other of readdirSync(all))
    if (other !== key) rmSync(join(all, other), { recursive: true, force: true });
  return join(all, key);
}
