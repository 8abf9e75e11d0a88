/**
 * `move-work`, and `autostart on` and `off`, killed (SIGKILL) at random times, and with too little space in the new
 * place. systemctl and crontab are stand-ins.
 */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { contentOfDirectory } from "./disk-oracle.ts";
import { seededRandom } from "./faults-lab.ts";
import { saysNoSpace } from "./full-faults.ts";
import { must, SoakLab, type SoakSweep } from "./soak-lab.ts";
import { badSpeech, notDone, type Ran } from "./soak-speech.ts";
import { configure, listing } from "./tools.ts";

/** States of a VM before a command. */
const STATES = ["off", "in place", "user on", "cron on"] as const;
type State = (typeof STATES)[number];

interface Scenario {
  from: State;
  command: readonly string[];
  /** The command that undoes it, and ends in `from` as well as a completed one. */
  undo?: readonly string[];
  /** It moves the working files to another filesystem. */
  across?: true;
}

const ON = ["autostart", "on", "--order=20", "--restart"];
const OFF = ["autostart", "off"];

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  "move beside": { from: "off", command: ["move-work", "../place"] },
  "move across": { from: "off", command: ["move-work", "FAR"], across: true },
  "move in": { from: "off", command: ["move-work"] },
  "move out": { from: "in place", command: ["move-work", "../place"] },
  "user on": { from: "off", command: [...ON, "--user"], undo: OFF },
  "user off": { from: "user on", command: OFF, undo: [...ON, "--user"] },
  "cron on": { from: "off", command: ["autostart", "on", "--order=20", "--cron"], undo: OFF },
  "cron off": { from: "cron on", command: OFF, undo: ["autostart", "on", "--order=20", "--cron"] },
};

/** For a sample. */
export const AUTOSTART_SCENARIOS: readonly string[] = Object.keys(SCENARIOS);

const SYSTEMCTL = `units=$HOME/.config/systemd/user wants=$HOME/.config/systemd/user/default.target.wants
case "$*" in
  *' enable '*) mkdir -p "$wants" && ln -sf "../$3" "$wants/$3" ;;
  *' disable '*) rm -f "$wants/$3" ;;
  *is-active*) echo inactive ;;
esac`;
const CRONTAB = `case $1 in
  -l) [ -e "$HOME/crontab" ] || { echo 'no crontab for x' >&2; exit 1; }; cat "$HOME/crontab" ;;
  -) cat >"$HOME/crontab.new" && mv "$HOME/crontab.new" "$HOME/crontab" ;;
esac`;

/** What the caller's own crontab has besides. */
const OWN_LINES = "# mine\n\n0 5 * * * true\n";

class AutostartLab implements Disposable {
  /** Of the caller's units and crontab, in both states of each manager. */
  readonly #plans = new Map<State, string>();

  private constructor(
    readonly lab: SoakLab,
    /** A directory on another filesystem. */
    readonly far: string,
  ) {}

  /** A VM that is off, with data on both disks, and one beside it that is started with the host. */
  static async make(): Promise<AutostartLab> {
    // A reboot empties /tmp, and what is in memory.
    const lab = SoakLab.empty({ inplace: false }, "/var/tmp");
    const far = mkdtempSync("/dev/shm/vm-far-");
    const made = new AutostartLab(lab, far);
    try {
      await made.#prepare();
    } catch (error) {
      made[Symbol.dispose]();
      throw error;
    }
    return made;
  }

  async #prepare(): Promise<void> {
    const { lab } = this;
    const { box, store } = lab;
    configure(box, "MEMORY=64M\nCORES=1\nPORT=\nDISKS=(VIRT=16M AHCI=16M)\n");
    const bin = join(store, "bin");
    mkdirSync(bin);
    for (const [name, script] of Object.entries({ systemctl: SYSTEMCTL, crontab: CRONTAB }))
      writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    box.environment.PATH = `${bin}:${process.env.PATH}`;
    mkdirSync(join(box.top, "place"), { mode: 0o700 });
    writeFileSync(join(box.home, "crontab"), OWN_LINES);
    const beside = join(box.top, "beside");
    mkdirSync(beside, { mode: 0o700 });
    await lab.ok(["-d", beside, "create", "Beside", "--inplace"]);
    await lab.ok(["-d", beside, "autostart", "on", "--user", "--order=30"]);
    await lab.ok(["-d", beside, "move-work", "../place"]);
    await lab.ok(["create", "G"]);
    await lab.change();
    lab.known.set("work", await contentOfDirectory(box.work, readdirSync(box.work)));
    await this.#keep("off");
    for (const state of ["user on", "cron on"] as const) {
      await lab.load("off");
      await lab.ok(SCENARIOS[state]!.command);
      await this.#keep(state);
    }
    await lab.load("off");
    await lab.ok(["move-work"]);
    await this.#keep("in place");
  }

  async #keep(state: State): Promise<void> {
    await this.lab.save(state);
    this.#plans.set(state, this.#plan());
  }

  load = async ({ from }: Scenario): Promise<void> => {
    rmSync(this.far, { recursive: true, force: true });
    mkdirSync(this.far, { mode: 0o700 });
    await this.lab.load(from);
  };

  run(command: readonly string[], killAfter?: number, withChildren = false): Promise<Ran> {
    const words = command.map((word) => (word === "FAR" ? this.far : word));
    return this.lab.run(words, killAfter === undefined ? {} : { killAfter, withChildren });
  }

  #plan(): string {
    const { home } = this.lab.box;
    return [readFileSync(join(home, "crontab"), "utf8"), ...listing(join(home, ".config"))].join("\n");
  }

  /** What is younger may be of a process that runs. */
  #age(): void {
    const { home } = this.lab.box;
    const then = Date.now() / 1000 - 3600;
    for (const directory of [join(home, ".config"), join(home, ".config/systemd/user")])
      for (const name of existsSync(directory) ? readdirSync(directory) : [])
        if (name.startsWith(".vm-")) utimesSync(join(directory, name), then, then);
  }

  async judge(scenario: Scenario): Promise<string[]> {
    const { lab } = this;
    const wrong = await lab.quiet();
    const held = await lab.work();
    // In place, the next command completes it.
    if (held !== "work" && !existsSync(lab.box.path(".vm-ready")))
      wrong.push(`at once: the working disks hold ${held}`);
    if (!readFileSync(join(lab.box.home, "crontab"), "utf8").startsWith(OWN_LINES))
      wrong.push("the crontab has lost lines that are not the program's");
    wrong.push(
      ...notDone("then", await this.run(["status"])),
      ...notDone("then", await this.run(["autostart"])),
    );
    wrong.push(...(scenario.undo ? await this.#judgePlans(scenario.undo, scenario) : []));
    wrong.push(...(scenario.undo ? [] : await this.#judgeMove(scenario)));
    return wrong;
  }

  /** Undone, nothing is left of it; then it succeeds. */
  async #judgePlans(undo: readonly string[], { from, command }: Scenario): Promise<string[]> {
    this.#age();
    const wrong = notDone("to undo it", await this.run(undo));
    if (this.#plan() !== this.#plans.get(from)) wrong.push(`undone, there is ${this.#plan()}`);
    wrong.push(...notDone("again", await this.run(command)));
    const after = from === "off" ? (`${command.includes("--cron") ? "cron" : "user"} on` as const) : "off";
    if (this.#plan() !== this.#plans.get(after)) wrong.push(`again, there is ${this.#plan()}`);
    return [...wrong, ...this.lab.leftovers().map((name) => `left over: ${name}`)];
  }

  async #judgeMove({ command }: Scenario): Promise<string[]> {
    const { lab } = this;
    const wrong = notDone("again", await this.run(command));
    const held = await lab.work();
    if (held !== "work") wrong.push(`in the end the working disks hold ${held}`);
    wrong.push(...notDone("then", await this.run(["backup", "later"])));
    wrong.push(...this.#left(1));
    wrong.push(...notDone("then", await this.run(["destroy"])));
    wrong.push(...this.#left(0));
    return wrong;
  }

  /** More directories of working files than so many, and one of the VM beside; other files that no completed command leaves. */
  #left(most: number): string[] {
    const { top, tmp, host } = this.lab.box;
    const works = [tmp, this.far, join(top, "place")].flatMap((dir) =>
      readdirSync(dir).map((name) => join(dir, name)),
    );
    const partial = readdirSync(host).filter((name) => name.startsWith(".vm-"));
    return works.length > most + 1 || partial.length > 0
      ? [`left over: ${[...works, ...partial].join(" ")}`]
      : [];
  }

  [Symbol.dispose](): void {
    this.lab[Symbol.dispose]();
    rmSync(this.far, { recursive: true, force: true });
  }
}

/** Kills each command so many times. */
export async function sweepAutostartKills(
  { seed, point, wanted }: Pick<SoakSweep, "seed" | "point" | "wanted">,
  kills: number,
): Promise<void> {
  const random = seededRandom(seed + 9);
  const names = AUTOSTART_SCENARIOS.filter((name) => wanted(`autostart:${name}:kill`));
  if (names.length === 0) return;
  using lab = await AutostartLab.make();
  for (const name of names) {
    const scenario = SCENARIOS[name]!;
    await lab.load(scenario);
    const done = await lab.run(scenario.command);
    point(`autostart:${name}:kill:never`, [...notDone("undisturbed", done), ...(await lab.judge(scenario))]);
    for (let turn = 0; turn < kills; turn++) {
      const moment = (turn + random()) / kills;
      await lab.load(scenario);
      const ran = await lab.run(scenario.command, moment * done.seconds * 1000, random() < 0.5);
      const wrong = [...badSpeech(ran), ...(await lab.judge(scenario))];
      point(`autostart:${name}:kill:${turn}:${Math.round(moment * 100)}%`, wrong);
    }
  }
}

/** Lets a small new place fill up at so many moments, or be full from the start. Only where one can mount. */
export async function sweepMoveFull(
  { seed, point, wanted }: Pick<SoakSweep, "seed" | "point" | "wanted">,
  steps: number,
): Promise<void> {
  if (!wanted("autostart:move across:full")) return;
  const random = seededRandom(seed + 10);
  const scenario = SCENARIOS["move across"]!;
  using lab = await AutostartLab.make();
  await lab.load(scenario);
  const { seconds } = await lab.run(scenario.command);
  for (let turn = 0; turn < steps; turn++) {
    const moment = turn === 0 ? 0 : (turn - random()) / (steps - 1);
    await lab.load(scenario);
    await must(["mount", "-t", "tmpfs", "-o", "mode=700,size=8M", "vm-far", lab.far]);
    try {
      const ballast = join(lab.far, ".ballast");
      const fill = (): void => {
        const { bavail, bsize } = statfsSync(lab.far);
        Bun.spawnSync(["fallocate", "-l", String(Math.max(1, bavail * bsize - turn * 65_536)), ballast]);
      };
      if (turn === 0) fill();
      const timer = setTimeout(fill, moment * seconds * 1000);
      const ran = await lab.run(scenario.command);
      clearTimeout(timer);
      const wrong = [...badSpeech(ran), ...saysNoSpace(ran)];
      if (ran.status === 73 && readdirSync(lab.far).some((name) => name !== ".ballast"))
        wrong.push(`left over at once: ${readdirSync(lab.far).join(" ")}`);
      rmSync(ballast, { force: true });
      wrong.push(...(await lab.judge(scenario)));
      point(`autostart:move across:full:${turn}:${Math.round(moment * 100)}%`, wrong);
    } finally {
      await must(["umount", "--lazy", lab.far]);
    }
  }
}
