/** Several commands at once on one VM, in random mixes, for a given time; its guest writes whenever it runs. */
import { BusyVm } from "./busy-vm.ts";
import { seededRandom } from "./faults-lab.ts";
import { soakVariantName, type SoakSweep, type SoakVariant } from "./soak-lab.ts";
import { badSpeech, lastLines, notDone, type Ran } from "./soak-speech.ts";

/** An action of a worker: commands one after the other. */
interface Act {
  weight: number;
  /** @param names snapshots that exist at this time */
  commands: (names: readonly string[], pick: () => number) => readonly (readonly string[])[];
  /** Allowed exit statuses besides 0 and 75 (locked by another command, or the VM runs). */
  allowed?: readonly number[];
}

const any = (names: readonly string[], pick: () => number): string =>
  names[Math.floor(pick() * names.length)] ?? "base1";

/** 66: another command has removed the snapshot, or the working disks, meanwhile. */
const GONE = [66];

const ACTS: Readonly<Record<string, Act>> = {
  "backup gz": { weight: 3, commands: () => [["backup", "--format=gz"]], allowed: GONE },
  "backup qcow2": { weight: 4, commands: () => [["backup", "--format=qcow2"]], allowed: GONE },
  "backup full": { weight: 1, commands: () => [["backup", "--format=qcow2", "--full"]], allowed: GONE },
  restore: { weight: 2, commands: (names, pick) => [["restore", any(names, pick)]], allowed: GONE },
  "restore copy": {
    weight: 1,
    commands: (names, pick) => [["restore", any(names, pick), "--copy"]],
    allowed: GONE,
  },
  prune: { weight: 2, commands: () => [["prune", "--keep-last=3"]] },
  list: { weight: 2, commands: () => [["snapshots", "list", "--json"]] },
  show: {
    weight: 2,
    commands: (names, pick) => [["snapshots", "show", any(names, pick)]],
    allowed: GONE,
  },
  verify: { weight: 2, commands: (names, pick) => [["verify", any(names, pick)]], allowed: GONE },
  "verify last": { weight: 1, commands: () => [["verify"]] },
  "verify all": { weight: 1, commands: () => [["verify", "--all"]] },
  "destroy and restore": { weight: 2, commands: () => [["destroy"], ["restore"]], allowed: GONE },
  run: { weight: 3, commands: () => [["run", "--detach"]] },
  stop: { weight: 3, commands: () => [["stop", "--force"]] },
  status: { weight: 2, commands: () => [["status", "--json"]] },
  "list all": { weight: 1, commands: () => [["list", "--json"]] },
};

/**
 * @param beside commands that ran at the same time
 * @returns problems with a command's end in a mix
 */
function judgeEnd(act: Act, ran: Ran, beside: ReadonlySet<string>): string[] {
  const wrong = badSpeech(ran);
  const { status, signal, stderr, stdout, argv } = ran;
  const allowed = [0, 75, ...(act.allowed ?? [])];
  // Another command ends the guest while it starts, or while its disks are copied.
  if (["run", "backup"].includes(argv[0]!) && beside.has("stop --force")) allowed.push(74);
  if (wrong.length === 0 && !allowed.includes(status ?? -1))
    wrong.push(
      `${argv.join(" ")}: status ${status ?? signal}: ${lastLines(stderr || stdout)} (beside ${[...beside].join(", ")})`,
    );
  if (status === 0 && argv.includes("--json")) {
    try {
      JSON.parse(stdout);
    } catch {
      wrong.push(`${argv.join(" ")}: status 0, and no JSON: ${stdout.slice(0, 200)}`);
    }
  }
  return wrong;
}

/** Do all invariants hold after every command has ended? Uses the VM up. */
async function judgeRest(vm: BusyVm): Promise<string[]> {
  const { lab } = vm;
  const wrong = notDone("in the end", await lab.run(["stop", "--force"]));
  wrong.push(...(await lab.quiet()), ...(await vm.judgeSnapshots()).wrong);
  wrong.push(...((await vm.work())?.wrong ?? []).map((text) => `the working disks: ${text}`));
  wrong.push(...notDone("in the end", await lab.run(["verify", "--all", "--deep"], { seconds: 180 })));
  wrong.push(...notDone("in the end", await lab.run(["restore", "base2"])));
  const restored = await vm.work();
  if (restored?.lineage !== 2 || restored.count !== 0 || restored.wrong.length > 0)
    wrong.push(`restore base2 gives ${JSON.stringify(restored)}`);
  wrong.push(...notDone("in the end", await lab.run(["backup"])), ...(await vm.judgeSnapshots()).wrong);
  wrong.push(...notDone("in the end", await lab.run(["prune", "--keep-last=1"])));
  wrong.push(...notDone("in the end", await lab.run(["destroy"])));
  const rest = lab.leftovers();
  if (rest.length > 0) wrong.push(`left over in the end: ${rest.join(" ")}`);
  return wrong;
}

/** Counts of each action's exit statuses: `backup gz 0:12 75:3`. */
export type MixCounts = ReadonlyMap<string, ReadonlyMap<string, number>>;

/**
 * Runs `workers` commands at once on one VM.
 * @returns how the commands ended
 */
export async function sweepMix(
  { seed, point, parent, wanted }: SoakSweep,
  variant: SoakVariant,
  options: { seconds: number; workers?: number },
): Promise<MixCounts> {
  const counts = new Map<string, Map<string, number>>();
  const title = `mix:${soakVariantName(variant)}`;
  if (!wanted(title)) return counts;
  using vm = await BusyVm.make(variant, parent);
  const { lab } = vm;
  const end = performance.now() + options.seconds * 1000;
  const bag = Object.entries(ACTS).flatMap(([name, act]) => Array<string>(act.weight).fill(name));
  const running = new Map<number, { words: string; beside: Set<string> }>();
  let turn = 0;
  const work = async (worker: number): Promise<void> => {
    const random = seededRandom(seed * 100 + worker);
    while (performance.now() < end) {
      const name = bag[Math.floor(random() * bag.length)]!;
      const act = ACTS[name]!;
      const wrong: string[] = [];
      for (const command of act.commands(lab.names(), random)) {
        const words = command.join(" ");
        const beside = new Set([...running.values()].map((other) => other.words));
        for (const other of running.values()) other.beside.add(words);
        running.set(worker, { words, beside });
        const ran = await lab.run(command, { seconds: 120 });
        running.delete(worker);
        const ends = counts.get(name) ?? new Map<string, number>();
        const how = String(ran.status ?? ran.signal);
        counts.set(name, ends.set(how, (ends.get(how) ?? 0) + 1));
        wrong.push(...judgeEnd(act, ran, beside));
        if (ran.status !== 0) break;
      }
      point(`${title}:${name}:${turn++}`, wrong);
    }
  };
  await Promise.all(Array.from({ length: options.workers ?? 4 }, (_, worker) => work(worker)));
  point(`${title}:end`, await judgeRest(vm));
  return counts;
}
