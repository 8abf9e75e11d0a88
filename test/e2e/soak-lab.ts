/**
 * The laboratory of kill-faults.ts, mixed-faults.ts, full-faults.ts and flip-faults.ts: a VM with snapshots of both
 * formats and a restic repository, and an oracle that does not use the program.
 */
import {
  chmodSync,
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { contentOfDirectory } from "./disk-oracle.ts";
import { processesIn, binary, Sandbox, until } from "./harness.ts";
import { lastLines, notDone, type Ran } from "./soak-speech.ts";
import { configure } from "./tools.ts";

export interface SoakVariant {
  inplace: boolean;
  uefi?: boolean;
}

export const soakVariantName = ({ inplace, uefi }: SoakVariant): string =>
  `${inplace ? "inplace" : "tmpdir"}${uefi ? "+uefi" : ""}`;

/** Is this the name of a temporary file of the program? */
const isPassing = (name: string): boolean => /^\.vm-(partial|ready|removing)/.test(name);
const read = (dir: string): string[] => (existsSync(dir) ? readdirSync(dir) : []);

/** On an overloaded machine everything takes longer: the factor. */
export const loadFactor = (): number => Math.max(1, loadavg()[0]! / availableParallelism());

/** Called with each point and its problems. */
export type PointSink = (name: string, violations: readonly string[]) => void;

export interface SoakSweep {
  seed: number;
  point: PointSink;
  /** Directory of the sandboxes. */
  parent?: string;
  labs: SoakLabs;
  /** Is a point of this name wanted? Called with the point's first fields. */
  wanted: (name: string) => boolean;
}

/** `nothing`: an empty HOSTDIR. `whole`: see {@link SoakLab}. `gone`: the same, destroyed. */
export type SoakTemplate = "nothing" | "whole" | "gone";

export interface Look {
  /** `P` … `C`, `work`, `none`, `gone`, or the difference from all of them. */
  work: string;
  snapshots: Record<string, string>;
  last?: string;
}

export async function must(argv: readonly string[], env = process.env): Promise<string> {
  const child = Bun.spawn([...argv], { stdin: "ignore", stdout: "pipe", stderr: "pipe", env });
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  if ((await child.exited) !== 0) throw new Error(`${argv.join(" ")}: ${stderr}`);
  return stdout;
}

/**
 * A VM with two disks; snapshots P, Q (gz) and A ← B ← C (qcow2), each with data and settings of its own; working disks
 * that have changed since; a repository with A.
 */
export class SoakLab implements Disposable {
  readonly box: Sandbox;
  readonly store: string;
  /** Contents by their names. */
  readonly known = new Map<string, string>();
  /** Size of the UEFI variables. */
  nvramBytes = 0;
  /** Output of commands, outside the sandbox, as its disk may be full. */
  readonly #outputs: string = mkdtempSync(join(tmpdir(), "vm-soak-output-"));
  #turn = 0;

  private constructor(
    readonly variant: SoakVariant,
    parent: string | undefined,
  ) {
    this.box = new Sandbox("vm1", parent);
    this.store = `${this.box.top}.store`;
    mkdirSync(this.store, { mode: 0o700 });
    if (alive.size === 0) process.once("exit", disposeAll);
    alive.add(this);
  }

  /** A HOSTDIR with only settings. */
  static empty(variant: SoakVariant, parent?: string): SoakLab {
    const lab = new SoakLab(variant, parent);
    const { box } = lab;
    configure(
      box,
      `MEMORY=64M\nCORES=1\nPORT=\nDISKS=(VIRT=16M AHCI=16M)\n` +
        `SNAPSHOT_REPO='${box.top}/repo'\nSNAPSHOT_PASSWORD_FILE='${box.home}/password'\n`,
    );
    return lab;
  }

  static async make(variant: SoakVariant, parent?: string): Promise<SoakLab> {
    const lab = SoakLab.empty(variant, parent);
    try {
      await lab.#prepare();
    } catch (error) {
      lab[Symbol.dispose]();
      throw error;
    }
    return lab;
  }

  async #prepare(): Promise<void> {
    const { box } = this;
    writeFileSync(join(box.home, "password"), "correct horse", { mode: 0o600 });
    await must(["restic", "-q", "-r", join(box.top, "repo"), "init"], {
      ...process.env,
      RESTIC_PASSWORD_FILE: join(box.home, "password"),
      HOME: box.home,
    });
    await this.save("nothing");
    box.write("vm.defaults", "# Nothing that changes anything.\n-rtc base=utc\n");
    await this.ok([...(this.variant.uefi ? ["--uefi"] : []), "create", "G"]);
    this.known.set("fresh", await this.#workContent());
    if (this.variant.uefi) this.nvramBytes = lstatSync(join(box.work, "efivars.bin")).size;
    for (const [name, format] of [
      ["P", "gz"],
      ["Q", "gz"],
      ["A", "qcow2"],
      ["B", "qcow2"],
      ["C", "qcow2"],
    ] as const) {
      await this.change();
      this.known.set(name, await this.#workContent());
      await this.ok(["backup", name, `the ${name}`, `--format=${format}`]);
    }
    await this.ok(["snapshots", "push", "A"]);
    await this.change();
    this.known.set("work", await this.#workContent());
    await this.save("whole");
    await this.ok(["destroy"]);
    await this.save("gone");
  }

  /** Changes both disks and the settings, like a run. */
  async change(): Promise<void> {
    const turn = ++this.#turn;
    const { work } = this.box;
    const noise = join(this.store, "noise");
    for (const disk of [0, 1]) {
      await must(["dd", "if=/dev/urandom", `of=${noise}`, "bs=64k", "count=4", "status=none"]);
      await must(
        ["qemu-io", "-f", "qcow2"].concat(
          ["-c", `write -q -P ${turn} 0 1M`, "-c", `write -q -s ${noise} ${turn}M 256k`],
          join(work, `disk-${disk}.img`),
        ),
      );
    }
    const env = join(work, "guest.env");
    writeFileSync(env, readFileSync(env, "utf8").replace(/^MEMORY=.*$/m, `MEMORY="${64 + turn}M"`));
    rmSync(join(work, "FIRSTTIME"), { force: true });
  }

  async save(template: SoakTemplate): Promise<void> {
    await must(["cp", "-a", "--reflink=auto", this.box.top, join(this.store, template)]);
  }

  /** Brings the VM into a state, replacing the present one. */
  async load(template: SoakTemplate): Promise<void> {
    this.endAll();
    const { top } = this.box;
    for (const name of readdirSync(top)) rmSync(join(top, name), { recursive: true, force: true });
    await must(["cp", "-a", "--reflink=auto", `${join(this.store, template)}/.`, top]);
  }

  args = (command: readonly string[]): string[] => [
    ...(this.variant.inplace ? ["--inplace"] : []),
    ...command,
  ];

  async ok(command: readonly string[]): Promise<Ran> {
    const ran = await this.run(command);
    const wrong = notDone("to prepare", ran);
    if (wrong.length > 0) throw new Error(wrong.join("\n"));
    return ran;
  }

  /**
   * Runs a command of the program with a limit of `seconds`. Its output goes to files, so that remaining children
   * do not keep a pipe open.
   * @param options `killAfter`: kills it with SIGKILL after this many ms, with its children if `withChildren`;
   * `argv`: starts it
   */
  async run(
    command: readonly string[],
    options: {
      killAfter?: number;
      withChildren?: boolean;
      spare?: readonly number[];
      seconds?: number;
      argv?: readonly string[];
    } = {},
  ): Promise<Ran> {
    const { seconds = 60, killAfter, spare = [] } = options;
    const file = join(this.#outputs, String(this.#turn++));
    const [out, err] = ["out", "err"].map((name) => openSync(`${file}.${name}`, "w+"));
    const begun = performance.now();
    const child = Bun.spawn([...(options.argv ?? [binary]), ...this.args(command)], {
      cwd: this.box.host,
      env: this.box.env(),
      stdin: "ignore",
      stdout: out!,
      stderr: err!,
    });
    let hung = false;
    const limit = setTimeout(
      () => {
        hung = true;
        child.kill("SIGKILL");
      },
      seconds * loadFactor() * 1000,
    );
    const kill =
      killAfter === undefined
        ? undefined
        : setTimeout(() => {
            if (options.withChildren) this.endAll(spare);
            child.kill("SIGKILL");
          }, killAfter);
    await child.exited;
    clearTimeout(limit);
    clearTimeout(kill);
    const took = (performance.now() - begun) / 1000;
    const [stdout = "", stderr = ""] = ["out", "err"].map((name) => {
      const text = readFileSync(`${file}.${name}`, "utf8");
      rmSync(`${file}.${name}`);
      return text;
    });
    for (const fd of [out!, err!]) closeSync(fd);
    return {
      argv: command,
      status: hung ? -1 : child.exitCode,
      signal: child.signalCode as string | null,
      stdout,
      stderr,
      seconds: took,
      hung,
    };
  }

  processes(spare: readonly number[] = []): string[] {
    return processesIn(this.box.top).filter((line) => !spare.includes(Number.parseInt(line, 10)));
  }

  /** Kills every process of the sandbox. */
  endAll(spare: readonly number[] = []): void {
    for (const line of this.processes(spare)) {
      try {
        process.kill(Number.parseInt(line, 10), "SIGKILL");
      } catch {
        // It has ended meanwhile.
      }
    }
  }

  /** @returns problems: processes that do not end */
  async quiet(spare: readonly number[] = []): Promise<string[]> {
    try {
      await until("no processes", () => this.processes(spare).length === 0);
      return [];
    } catch {
      const left = this.processes(spare);
      this.endAll(spare);
      return left.length > 0 ? [`processes left: ${left.join("; ").slice(0, 300)}`] : [];
    }
  }

  workDir(): string | undefined {
    const link = this.box.path(".work");
    if (!lstatSync(link, { throwIfNoEntry: false })) return this.variant.inplace ? this.box.host : undefined;
    return existsSync(link) ? realpathSync(link) : undefined;
  }

  async #workContent(): Promise<string> {
    const dir = this.workDir();
    if (dir !== undefined) return contentOfDirectory(dir, readdirSync(dir));
    return lstatSync(this.box.path(".work"), { throwIfNoEntry: false }) ? "gone" : "none";
  }

  #label(content: string): string {
    for (const [name, known] of this.known) if (known === content) return name;
    return content === "none" || content === "gone" ? content : `mixed (${content})`;
  }

  async work(): Promise<string> {
    return this.#label(await this.#workContent());
  }

  /** Snapshots listed by the program. */
  names(): string[] {
    const backups = this.box.path("backups");
    if (!existsSync(backups)) return [];
    return readdirSync(backups).filter((name) => name !== "LAST" && !name.startsWith("."));
  }

  /** The content of a snapshot: its name, or its problem. */
  async snapshot(name: string): Promise<string> {
    const dir = this.box.path("backups", name);
    const sums = Bun.spawnSync(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], {
      cwd: dir,
      stdout: "pipe",
      stderr: "pipe",
      timeout: 60_000,
    });
    if (sums.exitCode !== 0) return `damaged: ${lastLines(`${sums.stdout}${sums.stderr}`)}`;
    return this.#label(await contentOfDirectory(dir, readdirSync(dir)));
  }

  async look(): Promise<Look> {
    const snapshots: Record<string, string> = {};
    for (const name of this.names()) snapshots[name] = await this.snapshot(name);
    const link = this.box.path("backups", "LAST");
    const there = lstatSync(link, { throwIfNoEntry: false });
    const last = there && (there.isSymbolicLink() ? readlinkSync(link) : "no link");
    return { work: await this.work(), snapshots, ...(last === undefined ? {} : { last }) };
  }

  /** Files that no completed command leaves. */
  leftovers(): string[] {
    const { host, tmp } = this.box;
    const link = lstatSync(this.box.path(".work"), { throwIfNoEntry: false });
    const current = link ? readlinkSync(this.box.path(".work")) : "";
    return [
      ...read(host).filter(isPassing),
      ...read(join(host, "backups"))
        .filter((name) => name.startsWith("."))
        .map((name) => `backups/${name}`),
      ...read(tmp)
        .filter((name) => join(tmp, name) !== current)
        .map((name) => `TMPDIR/${name}`),
      ...(this.variant.inplace || current === "" ? [] : read(current).filter(isPassing)),
    ];
  }

  [Symbol.dispose](): void {
    alive.delete(this);
    this.endAll();
    this.box[Symbol.dispose]();
    if (existsSync(this.store)) chmodSync(this.store, 0o700);
    rmSync(this.store, { recursive: true, force: true });
    rmSync(this.#outputs, { recursive: true, force: true });
  }
}

/** Labs whose processes and files would remain after an interruption of the tests. */
const alive = new Set<SoakLab>();
function disposeAll(): void {
  for (const lab of alive) lab[Symbol.dispose]();
}

/** One lab for each variant, created on first use. */
export class SoakLabs implements AsyncDisposable {
  readonly #made = new Map<string, Promise<SoakLab>>();

  constructor(readonly parent?: string) {}

  get(variant: SoakVariant): Promise<SoakLab> {
    const name = soakVariantName(variant);
    const made = this.#made.get(name) ?? SoakLab.make(variant, this.parent);
    this.#made.set(name, made);
    return made;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const made of this.#made.values()) (await made.catch(() => undefined))?.[Symbol.dispose]();
  }
}
