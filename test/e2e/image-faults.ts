/**
 * Faults during commands on qcow2 snapshots (and `rm --merge`, `prune`): kills at various times, full disks,
 * flipped bits. The oracle reads disks like a guest, as the files themselves vary.
 */
import {
  chmodSync,
  closeSync,
  existsSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { seededRandom } from "./faults-lab.ts";
import { processesIn, Sandbox, until, type Result } from "./harness.ts";
import { configure } from "./tools.ts";

type Contents = Record<string, string>;

/** A command to disturb, and its possible results. */
interface Scenario {
  command: readonly string[];
  /** Snapshots that it may remove. */
  removes: readonly string[];
  /** Snapshots that it merges into others, if there is space. */
  merges?: readonly string[];
  /** The snapshot that it may create. */
  makes?: string;
  /** The content that the working disk may get; else it is unchanged. */
  restores?: string;
  /** Directories that it writes to, relative to the sandbox. */
  fills: readonly string[];
}

export const SCENARIOS: Readonly<Record<string, Scenario>> = {
  "full qcow2": {
    command: ["backup", "N", "--full"],
    removes: [],
    makes: "N",
    fills: ["vm1/backups"],
  },
  "incremental qcow2": { command: ["backup", "N"], removes: [], makes: "N", fills: ["vm1/backups"] },
  "restore of changes": { command: ["restore", "B"], removes: [], restores: "B", fills: ["tmp"] },
  "restore --copy": { command: ["restore", "B", "--copy"], removes: [], restores: "B", fills: ["tmp"] },
  merge: {
    command: ["snapshots", "rm", "--merge", "A", "B"],
    removes: ["A", "B"],
    fills: ["vm1/backups"],
  },
  prune: {
    command: ["prune", "--keep-last=1"],
    removes: ["P", "Q"],
    merges: ["A", "B"],
    fills: ["vm1/backups"],
  },
  "gz of changes": {
    command: ["backup", "N", "--format=gz"],
    removes: [],
    makes: "N",
    fills: ["vm1/backups"],
  },
};

async function output(argv: readonly string[]): Promise<string> {
  const child = Bun.spawn([...argv], { stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (status !== 0) throw new Error(`${argv.join(" ")}: ${stderr}`);
  return stdout;
}

const mustRun = async (...argv: string[]): Promise<void> => void (await output(argv));

/** The content of a disk: of an image the checksum of its data. */
async function contentOf(image: string): Promise<string> {
  const raw = `${image}.raw-${process.pid}`.replace(/^.*\//, "/dev/shm/vm-");
  try {
    await output(["qemu-img", "convert", "-O", "raw", image, raw]);
    return (await output(["sha256sum", raw])).slice(0, 16);
  } finally {
    rmSync(raw, { force: true });
  }
}

/** A VM with two disks, snapshots P, Q (gz), A ← B ← C (qcow2), and a working disk that has changed since. */
export class ImageLab implements Disposable {
  readonly box: Sandbox;
  readonly #store: string;
  known: Contents = {};
  work = "";

  private constructor(parent: string | undefined) {
    this.box = new Sandbox("vm1", parent);
    this.#store = `${this.box.top}.store`;
  }

  static async make(megabytes: number, parent?: string): Promise<ImageLab> {
    const lab = new ImageLab(parent);
    const { box } = lab;
    configure(box, `MEMORY=64M\nPORT=\nDISKS=(VIRT=${megabytes * 2}M)\nSNAPSHOT_FORMAT=qcow2\n`);
    await box.ok(["create", "G"]);
    let turn = 0;
    // Data that does not compress to nothing: a pattern, and random bytes.
    const change = async (at: number, size: number): Promise<void> => {
      turn++;
      const noise = join(box.top, "noise");
      await mustRun(
        "dd",
        "if=/dev/urandom",
        `of=${noise}`,
        "bs=1M",
        `count=${Math.ceil(size / 2)}`,
        "status=none",
      );
      const commands = [
        `write -q -P ${turn} ${at}M ${size}M`,
        `write -q -s ${noise} ${at}M ${Math.ceil(size / 2)}M`,
      ];
      await mustRun(
        "qemu-io",
        "-f",
        "qcow2",
        ...commands.flatMap((one) => ["-c", one]),
        join(box.work, "disk-0.img"),
      );
      rmSync(noise);
    };
    await change(0, megabytes);
    for (const name of ["P", "Q"]) await box.ok(["backup", name, "--format=gz"]);
    for (const name of ["A", "B", "C"]) {
      await box.ok(["backup", name]);
      lab.known[name] = await lab.contentOfSnapshot(name);
      await change(megabytes + turn, 3);
    }
    for (const name of ["P", "Q"]) lab.known[name] = lab.known.A!;
    lab.work = await contentOf(join(box.work, "disk-0.img"));
    await mustRun("cp", "-a", box.top, lab.#store);
    return lab;
  }

  /** Restores the initial state. */
  load(): void {
    const { top } = this.box;
    for (const name of readdirSync(top)) rmSync(join(top, name), { recursive: true, force: true });
    const { exitCode } = Bun.spawnSync(["cp", "-a", `${this.#store}/.`, top]);
    if (exitCode !== 0) throw new Error("cannot load the lab");
  }

  async contentOfSnapshot(name: string): Promise<string> {
    const dir = this.box.path("backups", name);
    if (existsSync(join(dir, "disk-0.qcow2"))) return contentOf(join(dir, "disk-0.qcow2"));
    const unpacked = join(this.box.top, "unpacked.qcow2");
    const fd = openSync(unpacked, "w", 0o600);
    const child = Bun.spawn(["pigz", "-dc", join(dir, "disk-0.img.gz")], { stdout: fd });
    closeSync(fd);
    if ((await child.exited) !== 0) return "does not unpack";
    const content = await contentOf(unpacked);
    rmSync(unpacked);
    return content;
  }

  snapshots(): string[] {
    return readdirSync(this.box.path("backups")).filter((name) => name !== "LAST" && !name.startsWith("."));
  }

  leftovers(): string[] {
    const work = realpathSync(this.box.path(".work"));
    const inBackups = readdirSync(this.box.path("backups")).filter((name) => name.startsWith("."));
    const inTmp = readdirSync(this.box.tmp).filter((name) => join(this.box.tmp, name) !== work);
    return [...inBackups, ...inTmp, ...readdirSync(work).filter((name) => name.startsWith(".vm-partial"))];
  }

  /**
   * Do all invariants hold after a disturbed command?
   * @param complete it reported success
   */
  async judge(name: string, complete: boolean): Promise<string[]> {
    const { removes, merges = [], makes, restores } = SCENARIOS[name]!;
    const wrong: string[] = [];
    // The next command cleans up.
    const next = await this.box.vm(["snapshots", "describe", "C", "judged"]);
    if (next.status !== 0) wrong.push(`the next command ends with ${next.status}: ${next.stderr.trim()}`);
    const allowed: Contents = { ...this.known, ...(makes ? { [makes]: this.work } : {}) };
    const seen = this.snapshots();
    for (const snapshot of Object.keys(this.known))
      if (!seen.includes(snapshot) && ![...removes, ...merges].includes(snapshot))
        wrong.push(`${snapshot} is lost`);
    for (const snapshot of seen) {
      if (!allowed[snapshot]) wrong.push(`there is ${snapshot}`);
      else {
        const content = await this.contentOfSnapshot(snapshot).catch(String);
        if (content !== allowed[snapshot]) wrong.push(`${snapshot} holds something else: ${content}`);
      }
    }
    if (complete) {
      if (makes && !seen.includes(makes)) wrong.push(`${makes} is said to be made, and is not there`);
      for (const gone of removes)
        if (seen.includes(gone)) wrong.push(`${gone} is said to be removed, and is there`);
    }
    const held = await contentOf(join(this.box.work, "disk-0.img")).catch(String);
    const may = restores ? [this.known[restores]!, ...(complete ? [] : [this.work])] : [this.work];
    if (!may.includes(held)) wrong.push(`the working disk holds something else: ${held}`);
    const verified = await this.box.vm(["verify", "--all", "--deep"]);
    if (verified.status !== 0) wrong.push(`verify: ${verified.stdout}${verified.stderr}`);
    const rest = this.leftovers();
    if (rest.length > 0) wrong.push(`left over: ${rest.join(" ")}`);
    // And the VM keeps working.
    const more = await this.box.vm(["backup", "later"]);
    if (more.status !== 0) wrong.push(`a backup later ends with ${more.status}: ${more.stderr}`);
    else if ((await this.contentOfSnapshot("later").catch(String)) !== held)
      wrong.push("a backup later holds something else");
    return wrong;
  }

  async ended(): Promise<void> {
    await until("its processes' end", () => processesIn(this.box.top).length === 0);
  }

  [Symbol.dispose](): void {
    this.box[Symbol.dispose]();
    rmSync(this.#store, { recursive: true, force: true });
  }
}

export interface Sweep {
  lab: ImageLab;
  seed: number;
  /** Called with each point. */
  point: (name: string, violations: readonly string[]) => void;
  only?: readonly string[];
}

/** Kills a command at times spread evenly over its duration. */
export async function sweepKills({ lab, seed, point, only }: Sweep, kills: number): Promise<void> {
  const random = seededRandom(seed);
  for (const [name, { command }] of Object.entries(SCENARIOS)) {
    if (only && !only.includes(name)) continue;
    lab.load();
    const begun = performance.now();
    await lab.box.ok(command);
    const took = performance.now() - begun;
    for (let index = 0; index < kills; index++) {
      lab.load();
      const moment = ((index + random()) / kills) * took * 1.05;
      const running = lab.box.start(command);
      await Promise.race([Bun.sleep(moment), running.done]);
      running.kill("SIGKILL");
      const { status } = await running.done;
      const violations = await lab.judge(name, status === 0);
      await lab.ended();
      point(`kill ${name} at ${Math.round(moment)} of ${Math.round(took)} ms`, violations);
    }
  }
}

/** Runs a command with slightly less space than it needs. */
export async function sweepFull({ lab, point, only }: Sweep, steps: number): Promise<void> {
  for (const [name, { command, fills }] of Object.entries(SCENARIOS))
    for (const place of fills) {
      if (only && !only.includes(name)) continue;
      const attempt = async (limit?: number): Promise<number> => {
        lab.load();
        const path = join(lab.box.top, place);
        const aside = `${lab.box.top}.aside`;
        rmSync(aside, { recursive: true, force: true });
        await mustRun("cp", "-a", path, aside);
        await mustRun("mount", "-t", "tmpfs", "-o", "size=1g,mode=700", "vm-faults", path);
        try {
          await mustRun("cp", "-a", `${aside}/.`, path);
          const used = (): number => {
            const { blocks, bfree, bsize } = statfsSync(path);
            return (blocks - bfree) * bsize;
          };
          const begin = used();
          if (limit !== undefined) await mustRun("mount", "-o", `remount,size=${begin + limit}`, path);
          let most = begin;
          const watch = setInterval(() => (most = Math.max(most, used())), 2);
          const result = await lab.box.vm(command);
          clearInterval(watch);
          most = Math.max(most, used());
          if (limit === undefined) {
            if (result.status !== 0) throw new Error(`${name} fails undisturbed: ${result.stderr}`);
            return most - begin;
          }
          await mustRun("mount", "-o", "remount,size=1g", path);
          const violations = await lab.judge(name, result.status === 0);
          violations.push(...saysWhy(result));
          point(`full ${name}, ${limit} more bytes in ${place}`, violations);
          return 0;
        } finally {
          await mustRun("umount", "--lazy", path);
          rmSync(aside, { recursive: true, force: true });
        }
      };
      const need = await attempt();
      for (let step = 0; step < steps; step++)
        await attempt(Math.max(4096, Math.floor((need * (step + 0.5)) / steps / 4096) * 4096));
    }
}

function saysWhy({ status, stderr }: Result): string[] {
  if (status === 0) return [];
  const wrong: string[] = [];
  if (status !== 73) wrong.push(`status ${status} instead of 73: ${stderr.trim()}`);
  if (!/no room|no space/i.test(stderr)) wrong.push(`the message does not speak of room: ${stderr.trim()}`);
  return wrong;
}

/** Flips one bit, or truncates one file, in a snapshot of each format: verify must detect it. */
export async function sweepBits({ lab, seed, point }: Sweep, flips: number): Promise<void> {
  const random = seededRandom(seed);
  lab.load();
  for (const [snapshot, file] of [
    ["P", "disk-0.img.gz"],
    ["A", "disk-0.qcow2"],
    ["C", "disk-0.qcow2"],
    ["C", "manifest.json"],
    ["C", "guest.env"],
  ] as const) {
    const path = lab.box.path("backups", snapshot, file);
    const { size, mode } = lstatSync(path);
    const look = async (what: string): Promise<void> => {
      const { status, stdout } = await lab.box.vm(["verify", snapshot]);
      const seen = status === 74 && stdout.includes(snapshot);
      point(`${what} of ${snapshot}/${file}`, seen ? [] : [`verify ends with ${status}: ${stdout}`]);
    };
    for (let index = 0; index < flips; index++) {
      const at = Math.floor(random() * size);
      const bit = 1 << Math.floor(random() * 8);
      flip(path, at, bit);
      await look(`bit ${bit} at ${at}`);
      flip(path, at, bit);
    }
    const copy = `${lab.box.top}/copy`;
    await mustRun("cp", "-a", path, copy);
    for (const left of [0, 1, size >> 1, size - 1]) {
      truncateSync(path, left);
      await look(`${left} bytes`);
      await mustRun("cp", "-a", copy, path);
    }
    rmSync(copy);
    chmodSync(path, mode & 0o777);
  }
  const { status, stdout } = await lab.box.vm(["verify", "--all", "--deep"]);
  point("all put back", status === 0 ? [] : [stdout]);
}

function flip(path: string, at: number, bit: number): void {
  const fd = openSync(path, "r+");
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, at);
  byte[0]! ^= bit;
  writeSync(fd, byte, 0, 1, at);
  closeSync(fd);
}
