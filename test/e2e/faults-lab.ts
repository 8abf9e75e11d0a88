/**
 * The laboratory of the fault tests (faults.test.ts, scripts/soak): a VM in known states, and the oracle that
 * checks after a fault whether all invariants hold.
 *
 * A VM has one of three contents: `fresh` (as created by `create`), `A` and `B`, which differ in every file, and in
 * the number of disks. A content is identified by the SHA-256 of its disks, NVRAM and guest.env.
 */
import { createCipheriv, createHash } from "node:crypto";
import {
  closeSync,
  copyFileSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  realpathSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { PATIENCE_SECONDS, processesIn, type Result, Sandbox, until } from "./harness.ts";

export type Content = "fresh" | "A" | "B";
type Hashes = Record<string, string>;

export interface Variant {
  inplace: boolean;
  uefi: boolean;
}

export const variantName = ({ inplace, uefi }: Variant): string =>
  `${uefi ? "uefi" : "bios"}${inplace ? "+inplace" : ""}`;

/** The contents of a VM, as visible to a user. */
export interface Whole {
  work: Content | "none";
  snapshots: Readonly<Record<string, Content>>;
  last?: string;
}

/** A command, with its initial and its final state. */
export interface Scenario {
  name: string;
  /** The initial state; also the name of its template. */
  template: keyof typeof TEMPLATES;
  command: readonly string[];
  after: Whole;
}

/** Initial states. */
export const TEMPLATES = {
  nothing: { work: "none", snapshots: {} },
  first: { work: "A", snapshots: {} },
  changed: { work: "B", snapshots: { S0: "A" }, last: "S0" },
  destroyed: { work: "none", snapshots: { S0: "A" }, last: "S0" },
} as const satisfies Record<string, Whole>;

export const SCENARIOS: readonly Scenario[] = [
  {
    name: "create",
    template: "nothing",
    command: ["create", "G"],
    after: { work: "fresh", snapshots: {} },
  },
  {
    name: "backup-first",
    template: "first",
    command: ["backup"],
    after: { work: "A", snapshots: { S0: "A" }, last: "S0" },
  },
  {
    name: "backup",
    template: "changed",
    command: ["backup"],
    after: { work: "B", snapshots: { S0: "A", S1: "B" }, last: "S1" },
  },
  {
    name: "restore",
    template: "changed",
    command: ["restore"],
    after: { work: "A", snapshots: { S0: "A" }, last: "S0" },
  },
  {
    name: "restore-none",
    template: "destroyed",
    command: ["restore", "S0"],
    after: { work: "A", snapshots: { S0: "A" }, last: "S0" },
  },
  {
    name: "destroy",
    template: "changed",
    command: ["destroy"],
    after: { work: "none", snapshots: { S0: "A" }, last: "S0" },
  },
];

export const scenario = (name: string): Scenario => SCENARIOS.find((item) => item.name === name)!;

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const isDisk = (name: string): boolean => /^disk-\d+\.img$/.test(name);
const isPart = (name: string): boolean => isDisk(name) || name === "efivars.bin";

/** lstat, or undefined if it does not exist. */
const lstatOf = (path: string) => lstatSync(path, { throwIfNoEntry: false });

/** Is this the name of a temporary file of the program? */
const isPassing = (name: string): boolean => /^\.vm-(partial|ready|removing)/.test(name);

const namesIn = (path: string): string[] => (lstatOf(path)?.isDirectory() ? readdirSync(path) : []);

const sha256 = (data: Uint8Array): string => createHash("sha256").update(data).digest("hex");

function hashFile(path: string): string {
  const hash = createHash("sha256");
  const buffer = Buffer.alloc(1 << 20);
  const fd = openSync(path, "r");
  for (let size = 1; size > 0;) {
    size = readSync(fd, buffer, 0, buffer.length, null);
    hash.update(buffer.subarray(0, size));
  }
  closeSync(fd);
  return hash.digest("hex");
}

/** Each `create` makes a new UUID: the settings are compared without it. */
const hashGuestEnv = (path: string): string =>
  sha256(Buffer.from(readFileSync(path, "utf8").replace(/^UUID="[0-9a-f-]{36}"$/m, 'UUID="…"')));

function must(argv: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(argv, {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  if (exitCode !== 0) throw new Error(`${argv.join(" ")}: status ${exitCode}: ${stderr.toString()}`);
}

/** A raw disk: half random data, half text, the same for the same name. */
function writeRaw(path: string, seed: string, bytes: number): void {
  const stream = createCipheriv("aes-128-ctr", createHash("md5").update(seed).digest(), Buffer.alloc(16));
  const fd = openSync(path, "w", 0o600);
  const piece = 1 << 18;
  for (let done = 0; done < bytes; done += 2 * piece) {
    writeSync(fd, stream.update(Buffer.alloc(piece)));
    writeSync(fd, stream.update(Buffer.alloc(piece >> 1)).toString("hex"));
  }
  closeSync(fd);
}

export interface Outcome extends Result {
  /** How the command was disturbed. */
  fault: "kill" | "signal" | "error" | "child-killed" | "none";
  /** For errors: the expected exit status. */
  expected?: readonly number[];
  /** The fault hit the clean-up, or came after the change: the next command may have to clean up. */
  mayLeaveRest?: boolean;
  seconds: number;
}

export interface Verdict {
  violations: string[];
  /** An in-place change was incomplete before the next command. */
  mixedBefore: boolean;
  /** The command had completed. */
  complete: boolean;
}

/** A VM that can be brought into known states. */
export class Lab implements Disposable {
  readonly box: Sandbox;
  readonly known = new Map<Content, Hashes>();
  readonly #store: string;

  private constructor(
    readonly variant: Variant,
    readonly megabytes: number,
    parent: string | undefined,
  ) {
    this.box = new Sandbox("vm1", parent);
    this.#store = `${this.box.top}.store`;
    mkdirSync(this.#store, { mode: 0o700 });
  }

  /** @param megabytes data on the first disk of each content */
  static async make(variant: Variant, megabytes = 2, parent?: string): Promise<Lab> {
    const lab = new Lab(variant, megabytes, parent);
    try {
      await lab.#prepare();
    } catch (error) {
      lab[Symbol.dispose]();
      throw error;
    }
    return lab;
  }

  async #prepare(): Promise<void> {
    this.#save("nothing");
    await this.ok(["create", "G"]);
    this.known.set("fresh", this.hashes(this.box.work));
    for (const content of ["A", "B"] as const) this.#makeContent(content, this.megabytes << 20);
    this.#put("A");
    this.#save("first");
    await this.ok(["backup"]);
    this.#put("B");
    this.#save("changed");
    await this.ok(["destroy"]);
    this.#save("destroyed");
  }

  #makeContent(content: Content, bytes: number): void {
    const dir = join(this.#store, content);
    mkdirSync(dir);
    const { work } = this.box;
    // The smaller disk makes it possible to disturb every single write of the children.
    const disks = [bytes, 1 << 19, ...(content === "B" ? [1 << 19] : [])];
    for (const [index, size] of disks.entries()) {
      const raw = join(dir, "raw");
      writeRaw(raw, `${content}${index}`, size);
      must(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, join(dir, `disk-${index}.img`)]);
      rmSync(raw);
    }
    if (this.variant.uefi) {
      const nvram = readFileSync(join(work, "efivars.bin"));
      nvram.write(`content ${content}`, nvram.length - 100);
      writeFileSync(join(dir, "efivars.bin"), nvram);
    }
    const third = content === "B" ? '\n    "SCSI=qcow2=disk-2.img"' : "";
    const env = readFileSync(join(work, "guest.env"), "utf8");
    writeFileSync(join(dir, "guest.env"), `${env.replace(/disk-1\.img"/, `$&${third}`)}# ${content}\n`);
    this.known.set(content, this.hashes(dir));
  }

  /** Gives the working files a content, like a run. */
  #put(content: Content): void {
    const { work } = this.box;
    for (const name of readdirSync(join(this.#store, content)))
      copyFileSync(join(this.#store, content, name), join(work, name));
    rmSync(join(work, "FIRSTTIME"), { force: true });
    const mark = join(work, ".vm.json");
    const text = JSON.parse(readFileSync(mark, "utf8")) as object;
    writeFileSync(mark, JSON.stringify({ ...text, lastRun: "powered-off" }));
  }

  #save(template: string): void {
    must(["cp", "-a", "--reflink=auto", this.box.top, join(this.#store, template)]);
  }

  /** Brings the VM into a state, replacing the present one. */
  load(template: keyof typeof TEMPLATES): void {
    for (const line of this.processes()) process.kill(Number.parseInt(line, 10), "SIGKILL");
    const { top } = this.box;
    for (const name of readdirSync(top)) rmSync(join(top, name), { recursive: true, force: true });
    must(["cp", "-a", "--reflink=auto", `${join(this.#store, template)}/.`, top]);
  }

  /** The program's arguments for this variant. */
  args(command: readonly string[]): string[] {
    const { inplace, uefi } = this.variant;
    const size = `${this.megabytes + 8}M`;
    const machine = [`--disks=AHCI=${size},VIRT=${size}`, ...(uefi ? ["--uefi"] : [])];
    return [...(inplace ? ["--inplace"] : []), ...(command[0] === "create" ? machine : []), ...command];
  }

  ok(command: readonly string[]): Promise<Result> {
    return this.box.ok(this.args(command));
  }

  vm(command: readonly string[]): Promise<Result> {
    return this.box.vm(this.args(command));
  }

  /** Runs any program in the sandbox's environment. */
  async spawn(
    argv: readonly string[],
    options: { env?: Record<string, string>; during?: (pid: number) => Promise<void> } = {},
  ): Promise<Result & { seconds: number }> {
    const start = performance.now();
    const child = Bun.spawn([...argv], {
      cwd: this.box.host,
      env: this.box.env(options.env),
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    let hung = false;
    const timer = setTimeout(() => {
      hung = true;
      child.kill("SIGKILL");
    }, PATIENCE_SECONDS * 1000);
    const [, stdout, stderr] = await Promise.all([
      child.exited,
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      options.during?.(child.pid),
    ]);
    clearTimeout(timer);
    return {
      status: hung ? -1 : child.exitCode,
      signal: child.signalCode as string | null,
      stdout,
      stderr,
      seconds: (performance.now() - start) / 1000,
    };
  }

  processes(): string[] {
    return processesIn(this.box.top);
  }

  hashes(dir: string): Hashes {
    const names = namesIn(dir).filter((name) => isPart(name) || name === "guest.env");
    return Object.fromEntries(
      names
        .toSorted()
        .map((name) => [name, (name === "guest.env" ? hashGuestEnv : hashFile)(join(dir, name))]),
    );
  }

  classify(hashes: Hashes): Content | "none" | "mixed" {
    if (!Object.keys(hashes).some(isPart)) return "none";
    for (const [content, known] of this.known) if (Bun.deepEquals(hashes, known)) return content;
    return "mixed";
  }

  /** The content of the working files; `gone` if `.work` is dangling. */
  work(): Content | "none" | "mixed" | "gone" {
    const link = this.box.path(".work");
    if (!lstatOf(link)) return this.variant.inplace ? this.classify(this.hashes(this.box.host)) : "none";
    try {
      return this.classify(this.hashes(realpathSync(link)));
    } catch {
      return "gone";
    }
  }

  /** The content of a snapshot, read without the program (not `deep`: `whole`), or its problem. */
  snapshot(name: string, deep: boolean): string {
    const dir = this.box.path("backups", name);
    const check = Bun.spawnSync(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], {
      cwd: dir,
      stdout: "pipe",
      stderr: "pipe",
    });
    if (check.exitCode !== 0) return `does not verify: ${check.stdout}${check.stderr}`.trim();
    if (!deep) return "whole";
    const hashes: Hashes = {};
    for (const file of readdirSync(dir).toSorted()) {
      const path = join(dir, file);
      if (file === "guest.env") hashes[file] = hashGuestEnv(path);
      else if (file.endsWith(".gz")) hashes[file.slice(0, -3)] = sha256(Bun.gunzipSync(readFileSync(path)));
    }
    return this.classify(hashes);
  }

  /** The state of the VM: working files, listed snapshots, LAST. */
  look(deep = true): { work: string; snapshots: Record<string, string>; last: string | undefined } {
    const backups = this.box.path("backups");
    const names = namesIn(backups).filter((name) => !name.startsWith(".") && name !== "LAST");
    const last = lstatOf(join(backups, "LAST"));
    return {
      work: this.work(),
      snapshots: Object.fromEntries(names.toSorted().map((name) => [name, this.snapshot(name, deep)])),
      last: last && (last.isSymbolicLink() ? readlinkSync(join(backups, "LAST")) : "no link"),
    };
  }

  /** Files that no completed command leaves. */
  leftovers(): string[] {
    const { host, tmp } = this.box;
    const current = lstatOf(this.box.path(".work")) ? readlinkSync(this.box.path(".work")) : "";
    const inHost = namesIn(host).filter(isPassing);
    const inBackups = namesIn(join(host, "backups")).filter((name) => name.startsWith("."));
    const inTmp = namesIn(tmp).filter((name) => join(tmp, name) !== current);
    const inWork = this.variant.inplace || !current ? [] : namesIn(current).filter(isPassing);
    const backups = inBackups.map((name) => `backups/${name}`);
    return [...inHost, ...backups, ...inTmp.map((name) => `TMPDIR/${name}`), ...inWork];
  }

  /**
   * The oracle: do all invariants hold after a disturbed command?
   * @param turn selects the next command, so that a sweep tries all
   */
  async judge(
    { template, command, after }: Scenario,
    outcome: Outcome,
    turn: number,
    deep = true,
  ): Promise<Verdict> {
    const before: Whole = TEMPLATES[template];
    const violations: string[] = [];
    const wrong = (text: string): void => void violations.push(text);
    const said = outcome.stderr.trim().split("\n").slice(-3).join(" | ");
    const either = [before.work, after.work];
    const lasts = [before.last, after.last];

    /** Checks the invariants that hold at any time. @returns the state */
    const checkWhole = (when: string, more: Readonly<Record<string, Content>> = {}) => {
      const seen = this.look(deep);
      const allowed: Record<string, Content> = { ...after.snapshots, ...more };
      for (const [name, content] of Object.entries(seen.snapshots)) {
        const wanted = allowed[name];
        if (!wanted || content !== (deep ? wanted : "whole"))
          wrong(`${when}: snapshot ${name} is ${content} instead of ${wanted ?? "absent"}`);
      }
      for (const name of Object.keys(before.snapshots))
        if (!seen.snapshots[name]) wrong(`${when}: snapshot ${name} is lost`);
      if (seen.last !== undefined && !seen.snapshots[seen.last])
        wrong(`${when}: LAST points at ${seen.last}, which is not there`);
      return seen;
    };

    try {
      await until("all processes gone", () => this.processes().length === 0);
    } catch {
      wrong(`processes left: ${this.processes().join("; ")}`);
    }

    const raw = checkWhole("at once");
    if (!lasts.includes(raw.last)) wrong(`at once: LAST is ${raw.last}, was ${before.last}`);
    const same =
      raw.work === before.work &&
      raw.last === before.last &&
      Object.keys(raw.snapshots).every((name) => name in before.snapshots);
    const saysSame =
      outcome.fault === "error" &&
      outcome.status !== 0 &&
      /nothing was (changed|removed)|working files unchanged/.test(outcome.stderr);
    // A failure that reports no change must be true: the next command must confirm it.
    const works = saysSame && same ? [before.work] : either;
    // An in-place change has a redo log; destroy moves the working files aside before it removes the symlink.
    const redo = this.variant.inplace || (command[0] === "destroy" && raw.work === "gone");
    const mixedBefore = redo && !(either as string[]).includes(raw.work);
    if (saysSame && !same) wrong(`it said that nothing was changed, but: ${JSON.stringify(raw)}`);
    else if (!mixedBefore && !(works as string[]).includes(raw.work))
      wrong(`at once: the working files are ${raw.work}, were ${before.work}`);
    const complete =
      raw.work === after.work &&
      raw.last === after.last &&
      Object.keys(after.snapshots).every((name) => raw.snapshots[name]);

    const { status, signal, fault } = outcome;
    if (status === -1) wrong("it hung for half a minute");
    if (status === 0 && !complete) wrong(`status 0, but the work is not done: ${JSON.stringify(raw)}`);
    const claim = /^(?:snapshot (\S+):|restored |created |destroyed )/m.exec(outcome.stderr);
    if (claim && !(claim[1] ? raw.snapshots[claim[1]] : raw.work === after.work))
      wrong(`it said "${claim[0]}…", but the work is not done`);
    if (fault === "error" || fault === "child-killed") {
      if (status !== 0 && !outcome.expected?.includes(status ?? -2))
        wrong(`status ${status ?? signal} instead of ${outcome.expected?.join(" or ")}: ${said}`);
      if (status !== 0 && !/^vm: /m.test(outcome.stderr)) wrong(`no error message: ${said}`);
    }
    if (fault === "signal" && status !== 0 && signal === null && !(status && status > 128))
      wrong(`status ${status} after a signal: ${said}`);
    // After the switch the old files are kept until it is durable; the message says so.
    const saidSo = outcome.stderr.includes("but the rest failed");
    if (fault !== "kill" && !mixedBefore && !outcome.mayLeaveRest && !saidSo) {
      // Only the redo logs of an in-place change may wait for the next command.
      const rest = this.leftovers().filter((name) => !/^\.vm-(ready|removing)/.test(name));
      if (rest.length > 0) wrong(`left behind by a command that failed by itself: ${rest.join(" ")}`);
    }

    // The next command, undisturbed.
    const nexts = [["backup"], ["restore"], ["destroy"], command];
    const next = nexts[turn % nexts.length]!;
    const result = await this.vm(next);
    const words = `then ${next.join(" ")}`;
    const seen = this.look(deep);
    const fails = (reason: string): void =>
      wrong(
        `${words}: ${reason}; status ${result.status}: ${result.stderr.trim().split("\n").slice(-3).join(" | ")}`,
      );
    const mayBe = (content: string): boolean => (works as string[]).includes(content);
    let made: Record<string, Content> = {};
    if (result.status === 0) {
      const newest = Object.keys(seen.snapshots).filter((name) => !raw.snapshots[name]);
      if (next[0] === "backup") {
        if (newest.length !== 1) fails(`new snapshots: ${newest.join(" ") || "none"}`);
        if (seen.last !== newest[0]) fails(`LAST is ${seen.last}`);
        if (!mayBe(seen.work) || seen.work === "none") fails(`the working files are ${seen.work}`);
        made = { [newest[0] ?? ""]: seen.work as Content };
      } else if (newest.length > 0) fails(`new snapshots: ${newest.join(" ")}`);
      const source = next[1] ?? raw.last ?? Object.keys(raw.snapshots).at(-1);
      if (next[0] === "restore" && seen.work !== { ...after.snapshots }[source ?? ""])
        fails(`the working files are ${seen.work} instead of those of ${source}`);
      if (next[0] === "destroy" && seen.work !== "none") fails(`the working files are ${seen.work}`);
      if (next[0] === "create" && seen.work !== "fresh") fails(`the working files are ${seen.work}`);
    } else {
      const refusal = { backup: 66, restore: 66, create: 73 }[next[0]!];
      const right =
        next[0] === "restore"
          ? Object.keys(raw.snapshots).length === 0
          : mayBe(seen.work) && (seen.work === "none") === (next[0] === "backup");
      if (result.status !== refusal || !right) fails(`the working files are ${seen.work}`);
      if (!mayBe(seen.work)) fails(`the working files are ${seen.work}`);
      // An existing VM is usable.
      if (next[0] === "create" && (await this.vm(["backup"])).status === 0) made = { S0: "fresh" };
      else if (next[0] === "create") fails("and a backup fails");
    }
    const rest = this.leftovers();
    if (result.status === 0 && rest.length > 0) fails(`left-overs: ${rest.join(" ")}`);
    const whole = checkWhole(words, made);

    for (const name of Object.keys(whole.snapshots)) {
      const restored = await this.vm(["restore", name]);
      const held = this.work();
      const wanted = { ...after.snapshots, ...made }[name];
      if (restored.status !== 0 || held !== wanted)
        wrong(
          `restore ${name}: status ${restored.status}, ${held} instead of ${wanted}: ${restored.stderr.trim()}`,
        );
    }
    const end = await this.vm(["destroy"]);
    if (end.status !== 0) wrong(`destroy in the end: status ${end.status}: ${end.stderr.trim()}`);
    const litter = this.leftovers();
    if (litter.length > 0) wrong(`left-overs in the end: ${litter.join(" ")}`);
    if (violations.length > 0 && said) violations[0] += `\n(the disturbed command said: ${said})`;
    return { violations, mixedBefore, complete };
  }

  [Symbol.dispose](): void {
    this.box[Symbol.dispose]();
    rmSync(this.#store, { recursive: true, force: true });
  }
}
