/**
 * `snapshots get` and `restore --only`, killed (SIGKILL) at random times, and with a disk that fills up meanwhile. The guest's
 * filesystem is judged by e2fsprogs, not by the program.
 */
import { existsSync, lstatSync, mkdirSync, readdirSync, rmSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { seededRandom } from "./faults-lab.ts";
import { killAtMoments, type Killed } from "./kill-moments.ts";
import { saysNoSpace, SmallExt4 } from "./full-faults.ts";
import { must, SoakLab, type SoakSweep } from "./soak-lab.ts";
import { badSpeech, notDone, type Ran } from "./soak-speech.ts";
import { configure } from "./tools.ts";

interface Scenario {
  command: readonly string[];
  /** The guest's paths that it replaces; none: it copies `/srv` to `out`. */
  replaces?: readonly string[];
  /** Without the rescue's saved state. */
  cold?: true;
  /** Directories that it writes to. */
  fills: readonly string[];
}

const PATHS = ["/srv", "/home/kept"];
const get = (name: string): string[] => ["snapshots", "get", name, "/srv", "../out"];

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  "get qcow2": { command: get("A"), fills: ["out", "tmp"] },
  "get gz": { command: get("P"), fills: ["out"] },
  "restore only": {
    command: ["restore", "A", ...PATHS.map((path) => `--only=${path}`)],
    replaces: PATHS,
    fills: ["tmp"],
  },
  // The last, as each of its points boots the rescue twice, and saves its state.
  "get cold": { command: get("A"), cold: true, fills: [] },
};

/** For a sample. */
export const FILE_SCENARIOS: readonly string[] = Object.keys(SCENARIOS);

/** A tree of a guest; the paths of PATHS differ, `/home/other` does not. */
const TREE = String.raw`
mkdir -p t/etc t/srv/sub t/home; printf 'ID=x\n' >t/etc/os-release; echo '/dev/vda / ext4 defaults 0 1' >t/etc/fstab
echo same >t/home/other; echo "$1" >t/home/kept
for n in $(seq 60); do head -c 40000 /dev/urandom >"t/srv/sub/$1-$n"; done; head -c 6M /dev/urandom >t/srv/big
rm -f root.raw; mke2fs -q -t ext4 -d t -F root.raw 64M; qemu-img convert -f raw -O qcow2 root.raw "$2"`;

const PARTIAL = /^\.vm-partial-/;

class FilesLab implements Disposable {
  private constructor(
    readonly lab: SoakLab,
    /** `old` and `new` of each path of the guest. */
    readonly trees: Readonly<Record<string, Readonly<Record<string, string>>>>,
  ) {}

  /** A VM with the snapshots A and P, and other files in its working disk since; a rescue outside of what is loaded again. */
  static async make(parent?: string): Promise<FilesLab> {
    const lab = SoakLab.empty({ inplace: false }, parent);
    try {
      const { box, store } = lab;
      box.environment.XDG_CACHE_HOME = join(store, "cache");
      const rescue = `RESCUE_MEMORY=512M\nPROFILES='${join(store, "profiles")}'\n`;
      configure(box, `MEMORY=64M\nPORT=\nDISKS=(VIRT=64M)\n${rescue}`);
      await lab.ok(["rescue", "build"]);
      await lab.ok(["create", "G"]);
      const trees: Record<string, Record<string, string>> = {};
      for (const age of ["new", "old"]) {
        const disk = join(lab.workDir()!, "disk-0.img");
        rmSync(join(store, "t"), { recursive: true, force: true });
        await must(["bash", "-euc", `cd '${store}'; ${TREE}`, "bash", age, disk]);
        trees[age] = hashTree(join(store, "t"));
        if (age === "old") continue;
        await lab.ok(["backup", "A", "--format=qcow2"]);
        await lab.ok(["backup", "P", "--format=gz"]);
      }
      mkdirSync(join(box.top, "out"), { mode: 0o700 });
      // The rescue's saved state is there, too.
      await lab.ok(["snapshots", "ls", "A", "/"]);
      await lab.save("whole");
      return new FilesLab(lab, trees);
    } catch (error) {
      lab[Symbol.dispose]();
      throw error;
    }
  }

  get out(): string {
    return join(this.lab.box.top, "out");
  }

  async load({ cold }: Scenario): Promise<void> {
    await this.lab.load("whole");
    if (cold) rmSync(join(this.lab.store, "cache/vm/warm"), { recursive: true, force: true });
  }

  /** At once, and after the same command again. */
  async judge(scenario: Scenario): Promise<string[]> {
    return [...(await this.#judgeAtOnce(scenario)), ...(await this.#judgeAgain(scenario))];
  }

  /** Is each path old or new, and is everything else as it was? */
  async #judgeAtOnce(scenario: Scenario): Promise<string[]> {
    const wrong = await this.lab.quiet();
    const target = join(this.out, "srv");
    if (!scenario.replaces && existsSync(target)) {
      if (hash(target) !== this.trees.new!["/srv"]) wrong.push("half a copy has its final name");
      if ((lstatSync(target).mode & 0o777) !== 0o755) wrong.push("the copy has another mode");
    }
    return [...wrong, ...(await this.#judgeGuest(scenario.replaces ?? [], ["old", "new"]))];
  }

  async #judgeGuest(replaced: readonly string[], ages: readonly string[]): Promise<string[]> {
    const wrong: string[] = [];
    const found = await readGuestTree(this.lab, wrong);
    for (const [path, now] of Object.entries(found)) {
      if (PARTIAL.test(path.slice(path.lastIndexOf("/") + 1)) && ages.includes("old")) continue;
      const allowed = (replaced.includes(path) ? ages : ["old"]).map((age) => this.trees[age]![path]);
      if (!allowed.includes(now)) wrong.push(`the guest's ${path} is neither ${ages.join(" nor ")}`);
    }
    for (const path of Object.keys(this.trees.old!))
      if (found[path] === undefined) wrong.push(`the guest's ${path} is gone`);
    return wrong;
  }

  /** The same command again completes it, and nothing is left over. */
  async #judgeAgain({ command, replaces }: Scenario): Promise<string[]> {
    const { lab } = this;
    const wrong: string[] = [];
    // What is younger may be of a process that has not locked it yet.
    this.#age(this.out, join(lab.store, "cache/vm/warm"));
    const there = existsSync(join(this.out, "srv"));
    if (there && !replaces) rmSync(join(this.out, "srv"), { recursive: true });
    wrong.push(...notDone("again", await lab.run(command)), ...(await lab.quiet()));
    if (replaces) wrong.push(...(await this.#judgeGuest(replaces, ["new"])));
    else if (hash(join(this.out, "srv")) !== this.trees.new!["/srv"]) wrong.push("the second copy differs");
    const left = [...readdirSync(this.out), ...this.#warm()].filter((name) => PARTIAL.test(name));
    left.push(...lab.leftovers());
    if (left.length > 0) wrong.push(`left over: ${left.join(" ")}`);
    return [...wrong, ...notDone("then", await lab.run(["backup", "later"]))];
  }

  #warm(): string[] {
    const warm = join(this.lab.store, "cache/vm/warm");
    return existsSync(warm) ? readdirSync(warm) : [];
  }

  #age(...directories: string[]): void {
    const then = Date.now() / 1000 - 3600;
    for (const directory of directories.filter(existsSync))
      for (const name of readdirSync(directory))
        if (name.startsWith(".")) utimesSync(join(directory, name), then, then);
  }

  [Symbol.dispose](): void {
    this.lab[Symbol.dispose]();
  }
}

/** The files of the guest's first disk, an ext4, after a replay of the journal. */
export async function readGuestTree(lab: SoakLab, wrong: string[]): Promise<Record<string, string>> {
  const { store } = lab;
  const [raw, to] = [join(store, "judged.raw"), join(store, "judged")];
  const disk = join(lab.workDir()!, "disk-0.img");
  rmSync(to, { recursive: true, force: true });
  mkdirSync(to);
  await must(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", disk, raw]);
  // Status 1: it was replayed.
  await must(["bash", "-c", `e2fsck -E journal_only -fy '${raw}' || [ $? -le 1 ]`]);
  await must(["e2fsck", "-fn", raw]).catch((error: unknown) =>
    wrong.push(`the guest's filesystem: ${String(error)}`),
  );
  await must(["debugfs", "-R", `rdump / ${to}`, raw]);
  rmSync(join(to, "lost+found"), { recursive: true, force: true });
  return hashTree(to);
}

/** One line for each path two levels deep. */
export function hashTree(top: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of readdirSync(top)) {
    // Of these directories only what is in them counts.
    if (["etc", "home"].includes(name))
      for (const below of readdirSync(join(top, name)))
        found[`/${name}/${below}`] = hash(join(top, name, below));
    else if (name !== "lost+found") found[`/${name}`] = hash(join(top, name));
  }
  return found;
}

/** By tar, as names may be any bytes, and paths of any length. */
function hash(path: string): string {
  const script = 'tar -c --sort=name --mtime=@0 -C "${1%/*}" -- "${1##*/}" | sha256sum';
  const sum = Bun.spawnSync(["bash", "-c", script, "-", path]).stdout.toString().slice(0, 64);
  return `${(lstatSync(path).mode & 0o7777).toString(8)} ${sum}`;
}

/** Kills each of them so many times. */
export async function sweepFileKills(
  { seed, point, parent, wanted }: SoakSweep,
  kills: number,
): Promise<void> {
  const random = seededRandom(seed + 7);
  const names = FILE_SCENARIOS.filter((name) => wanted(`files:${name}:kill`));
  if (names.length === 0) return;
  using files = await FilesLab.make(parent);
  for (const name of names) {
    const scenario = SCENARIOS[name]!;
    const killed: Killed = {
      load: () => files.load(scenario),
      run: (kill = {}) => files.lab.run(scenario.command, kill),
      judge: () => files.judge(scenario),
    };
    await killAtMoments(`files:${name}:kill`, killed, { kills, random, share: 0.5, point });
  }
}

/** Lets the filesystem of each directory that they write to fill up at so many moments, or be too small from the start. */
export async function sweepFilesFull(
  { seed, point, parent, wanted }: SoakSweep,
  steps: number,
): Promise<void> {
  const random = seededRandom(seed + 8);
  const all = FILE_SCENARIOS.flatMap((name) => SCENARIOS[name]!.fills.map((place) => ({ name, place })));
  const chosen = all.filter(({ name, place }) => wanted(`files:${name}:full ${place}`));
  if (chosen.length === 0) return;
  using files = await FilesLab.make(parent);
  const { lab } = files;
  for (const { name, place } of chosen) {
    const scenario = SCENARIOS[name]!;
    await files.load(scenario);
    const { seconds } = await lab.ok(scenario.command);
    for (let turn = 0; turn < steps; turn++) {
      const moment = turn === 0 ? 0 : (turn - random()) / (steps - 1);
      await files.load(scenario);
      await using disk = await SmallExt4.over(join(lab.box.top, place), `${lab.store}/ext4`, 256);
      const room = Math.floor(random() * 256) * 4096;
      if (moment === 0) await disk.leave(room);
      const fill = setTimeout(() => void disk.leave(room), moment * seconds * 1000);
      const ran: Ran = await lab.run(scenario.command, { seconds: 120 });
      clearTimeout(fill);
      disk.enlarge();
      const wrong = [...badSpeech(ran), ...saysNoSpace(ran), ...(await files.judge(scenario))];
      point(`files:${name}:full ${place}:${turn}:${Math.round(moment * 100)}%`, wrong);
    }
  }
}
