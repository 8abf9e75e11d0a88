/** Exports and imports that are killed (SIGKILL) at random times, and on filesystems that are too small for them. */
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { join } from "node:path";
import { contentOfDirectory } from "./disk-oracle.ts";
import { seededRandom } from "./faults-lab.ts";
import { saysNoSpace, SmallExt4 } from "./full-faults.ts";
import { binary } from "./harness.ts";
import { killAtMoments, type Killed } from "./kill-moments.ts";
import { type SoakLab, type SoakSweep } from "./soak-lab.ts";
import { badSpeech, lastLines, notDone, type Ran } from "./soak-speech.ts";

interface Scenario {
  command: readonly string[];
  /** A file of the lab's store that is its stdin, by a pipe. */
  stdin?: string;
  /** Its stdout is a pipe. */
  pipe?: true;
  /** What the exported disks, or those of the imported VM, hold. */
  holds: "C" | "work";
  /** The snapshots of the imported VM. */
  snapshots?: readonly string[];
  /** Directories that it writes to, for full disks. */
  fills: readonly string[];
}

const FILE = "../out/x.vm";
const COPY = "../copies/copy";
const CHAIN = ["A", "B", "C"];

/** In the sandbox are `out` for exports, and `copies` for imported VMs; in the lab's store are intact exports. */
const SCENARIOS: Readonly<Record<string, Scenario>> = {
  "export snapshot": { command: ["export", "C", "-o", FILE], holds: "C", fills: ["out"] },
  "export VM": { command: ["export", "-o", FILE], holds: "work", fills: ["out", "vm1"] },
  "export OVA": {
    command: ["export", "--format=ova", "C", "-o", "../out/x.ova"],
    holds: "C",
    fills: ["out", "vm1"],
  },
  "export pipe": { command: ["export", "C"], pipe: true, holds: "C", fills: [] },
  "import file": {
    command: ["import", "STORE/good.vm", COPY],
    holds: "C",
    snapshots: CHAIN,
    fills: ["copies", "tmp"],
  },
  "import pipe": {
    command: ["import", "-", COPY],
    stdin: "good.vm",
    holds: "C",
    snapshots: CHAIN,
    fills: ["copies", "tmp"],
  },
  "import OVA": {
    command: ["import", "STORE/good.ova", COPY],
    holds: "C",
    snapshots: [],
    fills: ["copies", "tmp"],
  },
};

/** For a sample. */
export const EXPORT_SCENARIOS: readonly string[] = Object.keys(SCENARIOS);

const OFF = { inplace: false };

class ExportLab {
  #goodSnapshot: Buffer | undefined;

  constructor(readonly lab: SoakLab) {}

  path = (below: string): string => join(this.lab.box.top, below);

  get copy(): string {
    return this.path("copies/copy");
  }

  /** The state before each point. */
  async load(): Promise<void> {
    const { lab } = this;
    await lab.load("whole");
    for (const name of ["out", "copies"]) mkdirSync(this.path(name), { mode: 0o700 });
    if (this.#goodSnapshot) return;
    for (const [name, words] of [
      ["good.vm", []],
      ["good.ova", ["--format=ova"]],
    ] as const) {
      rmSync(join(lab.store, name), { force: true });
      await lab.ok(["export", ...words, "C", "-o", join(lab.store, name)]);
    }
    this.#goodSnapshot = readFileSync(join(lab.store, "good.vm"));
  }

  /** Runs it, with its stream: the program itself gets the process number, for the kill. */
  run(
    { command, stdin, pipe }: Scenario,
    kill: { killAfter?: number; withChildren?: boolean } = {},
  ): Promise<Ran> {
    const { lab } = this;
    const script = [
      ...(stdin === undefined ? [] : [`exec < <(cat '${join(lab.store, stdin)}')`]),
      ...(pipe ? [`exec > >(cat > '${this.path("out/piped")}')`] : []),
      'exec "$@"',
    ].join("; ");
    const words = command.map((word) => word.replace("STORE", lab.store));
    return lab.run(words, {
      argv: ["bash", "-c", script, "bash", binary],
      ...kill,
    });
  }

  /** At once, and after the same command again. */
  async judge(scenario: Scenario): Promise<string[]> {
    return [...(await this.#judgeAtOnce(scenario)), ...(await this.#judgeAgain(scenario))];
  }

  /** Do the original and the copy, as far as it exists, hold together at once? */
  async #judgeAtOnce({ holds, snapshots }: Scenario): Promise<string[]> {
    const { lab, copy } = this;
    const wrong = await lab.quiet();
    const { work, snapshots: kept, last } = await lab.look();
    if (work !== "work" || last !== "C" || Object.entries(kept).some(([name, held]) => name !== held))
      wrong.push(`the original holds ${work}, ${JSON.stringify(kept)}, LAST ${last}`);
    if (!snapshots || !existsSync(copy)) return wrong;
    const shown = readdirSync(copy).filter((name) => !name.startsWith(".vm-"));
    if (snapshots.length > 0 && shown.length > 0 && !shown.includes("backups"))
      wrong.push(`half a VM is visible: ${shown.join(" ")}`);
    if (shown.includes("backups") || shown.includes(".work"))
      wrong.push(...(await this.#judgeCopy(snapshots)));
    if (shown.includes(".work")) wrong.push(...(await this.#judgeWork(holds, snapshots)));
    return wrong;
  }

  async #judgeCopy(snapshots: readonly string[]): Promise<string[]> {
    const wrong: string[] = [];
    for (const name of snapshots) {
      const dir = join(this.copy, "backups", name);
      const held = existsSync(dir) ? await contentOfDirectory(dir, readdirSync(dir)) : "nothing";
      if (held !== this.lab.known.get(name)) wrong.push(`the copy's ${name} holds ${held}`);
    }
    return wrong;
  }

  async #judgeWork(holds: string, snapshots: readonly string[]): Promise<string[]> {
    const dir = realpathSync(join(this.copy, ".work"));
    // The settings of an OVA's VM are new ones.
    const disksOf = (content: string): string =>
      snapshots.length > 0 ? content : content.replace(/, env .*/, "");
    const held = disksOf(await contentOfDirectory(dir, readdirSync(dir)));
    return held === disksOf(this.lab.known.get(holds)!) ? [] : [`the copy's disks hold ${held}`];
  }

  /** The same command again completes it, and nothing is left over. */
  async #judgeAgain(scenario: Scenario): Promise<string[]> {
    return scenario.snapshots ? this.#importAgain(scenario) : this.#exportAgain(scenario);
  }

  async #exportAgain(scenario: Scenario): Promise<string[]> {
    const { lab } = this;
    const wrong: string[] = [];
    const target = scenario.command.at(-1)!;
    const file = scenario.pipe ? this.path("out/piped") : join(lab.box.host, target);
    if (scenario.pipe || !existsSync(file)) wrong.push(...notDone("again", await this.run(scenario)));
    await lab.quiet();
    if (!existsSync(file)) return [...wrong, "there is no export"];
    if (scenario.command.includes("--format=ova") || scenario.holds === "work")
      wrong.push(...(await this.#judgeByImport(scenario, file)));
    else if (!readFileSync(file).equals(this.#goodSnapshot!)) wrong.push("it differs from another export");
    const beside = readdirSync(this.path("out"));
    if (beside.length > 1) wrong.push(`left over: ${beside.join(" ")}`);
    return [...wrong, ...this.#leftovers()];
  }

  async #judgeByImport({ holds }: Scenario, file: string): Promise<string[]> {
    const { lab, copy } = this;
    const wrong = notDone("then", await lab.run(["import", file, copy]));
    if (!existsSync(join(copy, ".work"))) return wrong;
    wrong.push(...(await this.#judgeWork(holds, file.endsWith(".ova") ? [] : ["S0"])));
    return [...wrong, ...notDone("then", await lab.run(["-d", copy, "destroy"]))];
  }

  async #importAgain(scenario: Scenario): Promise<string[]> {
    const { copy, lab } = this;
    const staged = join(copy, ".vm-partial-import");
    const wrong: string[] = [];
    if (!existsSync(join(copy, ".work")) || existsSync(staged))
      wrong.push(...notDone("again", await this.run(scenario)));
    if (!existsSync(join(copy, ".work"))) return [...wrong, "there is no copy"];
    wrong.push(
      ...(await this.#judgeCopy(scenario.snapshots!)),
      ...(await this.#judgeWork(scenario.holds, scenario.snapshots!)),
    );
    if (scenario.snapshots!.length > 0)
      wrong.push(...notDone("then", await lab.run(["-d", copy, "verify", "--all"])));
    wrong.push(...notDone("then", await lab.run(["-d", copy, "backup", "later"])));
    const left = readdirSync(copy).filter((name) => name.startsWith(".vm-"));
    if (left.length > 0) wrong.push(`left over in the copy: ${left.join(" ")}`);
    wrong.push(...notDone("then", await lab.run(["-d", copy, "destroy"])));
    return [...wrong, ...this.#leftovers()];
  }

  #leftovers(): string[] {
    const left = this.lab.leftovers();
    return left.length > 0 ? [`left over: ${left.join(" ")}`] : [];
  }
}

/** Kills each of them so many times. */
export async function sweepExportKills(
  { seed, point, labs, wanted }: SoakSweep,
  kills: number,
): Promise<void> {
  const random = seededRandom(seed + 5);
  for (const [name, scenario] of Object.entries(SCENARIOS)) {
    if (!wanted(`export:${name}:kill`)) continue;
    const lab = new ExportLab(await labs.get(OFF));
    const killed: Killed = {
      load: () => lab.load(),
      run: (kill = {}) => lab.run(scenario, kill),
      judge: () => lab.judge(scenario),
    };
    await killAtMoments(`export:${name}:kill`, killed, { kills, random, share: 0.25, point });
  }
}

/** Runs each with less room than it needs, in each directory that it writes to. */
export async function sweepExportFull(
  { seed, point, labs, wanted }: SoakSweep,
  steps: number,
): Promise<void> {
  const random = seededRandom(seed + 6);
  for (const [name, scenario] of Object.entries(SCENARIOS))
    for (const place of scenario.fills) {
      const title = `export:${name}:full ${place}`;
      if (!wanted(title)) continue;
      const lab = new ExportLab(await labs.get(OFF));
      /** @returns the room that it used */
      const attempt = async (limit?: number): Promise<number> => {
        await lab.load();
        await using disk = await SmallExt4.over(lab.path(place), `${lab.lab.store}/ext4`);
        const begin = disk.free();
        let least = begin;
        if (limit === undefined) {
          const watch = setInterval(() => (least = Math.min(least, disk.free())), 2);
          const ran = await lab.run(scenario);
          clearInterval(watch);
          if (ran.status !== 0) throw new Error(`${title}: ${lastLines(ran.stderr)}`);
          return begin - Math.min(least, disk.free());
        }
        await disk.leave(limit);
        const ran = await lab.run(scenario);
        disk.enlarge();
        const wrong = [...badSpeech(ran), ...saysNoSpace(ran), ...(await lab.judge(scenario))];
        point(`${title}:${limit} bytes`, wrong);
        return 0;
      };
      const need = await attempt();
      for (let step = 0; step < steps; step++)
        await attempt(Math.floor((need * (step + random() * 0.8)) / steps / 4096) * 4096);
    }
}
