/** Kills (SIGKILL) at random times, in every command that changes a VM that is off. Running ones: live-kill-faults.ts. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { seededRandom } from "./faults-lab.ts";
import {
  must,
  type SoakLab,
  soakVariantName,
  type Look,
  type SoakSweep,
  type SoakTemplate,
  type SoakVariant,
} from "./soak-lab.ts";
import { badSpeech, notDone, type Ran } from "./soak-speech.ts";

/** A command to disturb, and its possible results. */
export interface SoakScenario {
  template: SoakTemplate;
  command: readonly string[];
  /** The snapshot that it may create, of the working disks. */
  makes?: string;
  /** Snapshots that it may remove. */
  removes?: readonly string[];
  /** Snapshots that it merges into others, if there is space. */
  merges?: readonly string[];
  /** The content of the working disks after success; else unchanged. */
  turnsInto?: string;
  /** Directories that it writes to, for full disks: relative to the sandbox; `work` is TMPDIR, or HOSTDIR in place. */
  fills: readonly string[];
  /** It frees space: it must work on a full disk. */
  makesRoom?: true;
}

export const SOAK_SCENARIOS: Readonly<Record<string, SoakScenario>> = {
  "backup gz": {
    template: "whole",
    command: ["backup", "N", "--format=gz"],
    makes: "N",
    fills: ["vm1/backups"],
  },
  "backup full": {
    template: "whole",
    command: ["backup", "N", "--format=qcow2", "--full"],
    makes: "N",
    fills: ["vm1/backups"],
  },
  "backup incremental": {
    template: "whole",
    command: ["backup", "N", "--format=qcow2"],
    makes: "N",
    fills: ["vm1/backups", "work"],
  },
  "restore qcow2": { template: "whole", command: ["restore", "A"], turnsInto: "A", fills: ["work"] },
  "restore gz": { template: "whole", command: ["restore", "P"], turnsInto: "P", fills: ["work"] },
  "restore copy": {
    template: "whole",
    command: ["restore", "B", "--copy"],
    turnsInto: "B",
    fills: ["work"],
  },
  "restore after destroy": { template: "gone", command: ["restore"], turnsInto: "C", fills: ["work"] },
  prune: {
    template: "whole",
    command: ["prune", "--keep-last=1"],
    removes: ["P", "Q"],
    merges: ["A", "B"],
    fills: ["vm1/backups"],
    makesRoom: true,
  },
  merge: {
    template: "whole",
    command: ["snapshots", "--merge", "rm", "A", "B"],
    removes: ["A", "B"],
    fills: ["vm1/backups"],
  },
  push: { template: "whole", command: ["snapshots", "push", "C"], fills: ["repo"] },
  create: { template: "nothing", command: ["create", "G"], turnsInto: "fresh", fills: ["work"] },
  destroy: {
    template: "whole",
    command: ["destroy"],
    turnsInto: "none",
    fills: ["work"],
    makesRoom: true,
  },
};

const START: Readonly<Record<SoakTemplate, Look>> = {
  nothing: { work: "none", snapshots: {} },
  whole: { work: "work", snapshots: { P: "P", Q: "Q", A: "A", B: "B", C: "C" }, last: "C" },
  gone: { work: "none", snapshots: { P: "P", Q: "Q", A: "A", B: "B", C: "C" }, last: "C" },
};

/** The next commands, one after the other; each must succeed, whatever was disturbed before. */
const NEXT: readonly (readonly string[])[] = [
  ["status"],
  ["backup", "later"],
  ["snapshots", "list"],
  ["restore", "C"],
  ["verify", "--all"],
  ["prune", "--keep-last=6"],
  ["backup", "later", "--format=qcow2"],
  ["destroy"],
];

/** Those that change nothing, and may leave an incomplete change to the next one. */
const LOOKS: readonly string[] = ["status", "snapshots", "verify"];

/** Invariants of the listed snapshots and LAST. */
function judgeSnapshots(when: string, seen: Look, scenario: SoakScenario, later?: string): string[] {
  const { snapshots: before, last, work } = START[scenario.template];
  const allowed: Record<string, string> = { ...before };
  if (scenario.makes) allowed[scenario.makes] = work;
  if (later !== undefined) allowed.later = later;
  const wrong: string[] = [];
  for (const [name, content] of Object.entries(seen.snapshots))
    if (content !== allowed[name])
      wrong.push(`${when}: the snapshot ${name} holds ${content} instead of ${allowed[name] ?? "nothing"}`);
  for (const name of Object.keys(before))
    if (
      !(name in seen.snapshots) &&
      ![...(scenario.removes ?? []), ...(scenario.merges ?? [])].includes(name)
    )
      wrong.push(`${when}: the snapshot ${name} is lost`);
  if (seen.last !== undefined && !(seen.last in seen.snapshots))
    wrong.push(`${when}: LAST points at ${seen.last}, which is not there`);
  if (![last, scenario.makes, ...(later === undefined ? [] : ["later"])].includes(seen.last))
    wrong.push(`${when}: LAST is ${seen.last}, was ${last}`);
  return wrong;
}

/**
 * Do all invariants hold after a disturbed command? Uses the VM up.
 * @param turn selects the next commands
 */
export async function judgeSoak(
  lab: SoakLab,
  scenario: SoakScenario,
  ran: Ran,
  turn: number,
): Promise<string[]> {
  const before = START[scenario.template];
  const after = scenario.turnsInto ?? before.work;
  const wrong = [...(await lab.quiet()), ...badSpeech(ran)];

  const seen = await lab.look();
  wrong.push(...judgeSnapshots("at once", seen, scenario));
  // In place there is a redo log, and files that destroy moved aside have no name: the next command completes it.
  const mayBeHalfway = lab.variant.inplace || scenario.command[0] === "destroy";
  if (seen.work !== before.work && seen.work !== after && !mayBeHalfway)
    wrong.push(`at once: the working disks hold ${seen.work}, held ${before.work}`);
  if (ran.status === 0) {
    if (seen.work !== after) wrong.push(`status 0, but the working disks hold ${seen.work}`);
    if (scenario.makes && (!(scenario.makes in seen.snapshots) || seen.last !== scenario.makes))
      wrong.push(`status 0, but ${scenario.makes} is not there, or is not LAST`);
    for (const name of scenario.removes ?? [])
      if (name in seen.snapshots) wrong.push(`status 0, but ${name} is there`);
  }

  const next = NEXT[turn % NEXT.length]!;
  const result = await lab.run(next);
  const words = `then ${next.join(" ")}`;
  const settled = await lab.look();
  wrong.push(...badSpeech(result).map((text) => `then ${text}`), ...(await lab.quiet()));
  const is = settled.work;
  const isWhole = is === before.work || is === after;
  const fails = (reason: string): void =>
    void wrong.push(`${words}: ${reason}; ${notDone("it", result).join("; ") || "status 0"}`);
  let later: string | undefined;
  if (next[0] === "restore" && result.status === 0) {
    if (is !== "C") fails(`the working disks hold ${is}`);
  } else if (next[0] === "destroy" && result.status === 0) {
    if (is !== "none") fails(`the working disks hold ${is}`);
  } else if (!isWhole && !(mayBeHalfway && LOOKS.includes(next[0]!)))
    fails(`the working disks hold ${is}, held ${before.work}`);
  if (result.status === 0 && next[0] === "backup") later = is;
  const hasSnapshots = Object.keys(settled.snapshots).length > 0;
  // A missing VM cannot be backed up or listed.
  const mayFail =
    (next[0] === "backup" && is === "none") ||
    (["restore", "verify", "prune", "status", "snapshots"].includes(next[0]!) && !hasSnapshots);
  if (result.status !== 0 && !(mayFail && result.status === 66)) fails("it fails");
  wrong.push(...judgeSnapshots(words, settled, scenario, later));

  if (hasSnapshots) wrong.push(...notDone("in the end", await lab.run(["verify", "--all"])));
  // Read-only commands leave the clean-up to the next change.
  const changes = ["backup", "restore", "prune", "destroy"].includes(next[0]!) && result.status === 0;
  const rest = changes ? lab.leftovers() : [];
  if (rest.length > 0) wrong.push(`left over after ${next.join(" ")}: ${rest.join(" ")}`);
  if (scenario.command.includes("push")) wrong.push(...(await judgeRepository(lab)));
  const good = Object.keys(settled.snapshots).find((name) => name !== "later");
  if (good !== undefined) {
    const restored = await lab.run(["restore", good]);
    const held = await lab.work();
    wrong.push(...notDone("in the end", restored));
    if (held !== settled.snapshots[good]) wrong.push(`restore ${good} gives ${held}`);
  }
  if ((await lab.work()) !== "none") wrong.push(...notDone("in the end", await lab.run(["destroy"])));
  // A completed create, then destroyed, leaves its settings.
  else if (scenario.template === "nothing" && !existsSync(lab.box.path("guest.env")))
    wrong.push(...notDone("in the end", await lab.run(["create", "G"])));
  const litter = lab.leftovers();
  if (rest.length === 0 && litter.length > 0) wrong.push(`left over in the end: ${litter.join(" ")}`);
  wrong.push(...(await lab.quiet()));
  return wrong;
}

/** A disturbed push is repeated without help, and restic itself finds no damage. */
async function judgeRepository(lab: SoakLab): Promise<string[]> {
  const { box } = lab;
  const wrong: string[] = [];
  if (lab.names().includes("C"))
    wrong.push(...notDone("once more", await lab.run(["snapshots", "push", "C"])));
  const env = { ...process.env, RESTIC_PASSWORD_FILE: join(box.home, "password"), HOME: box.home };
  try {
    // A stale lock is no damage.
    await must(
      ["restic", "-q", "-r", join(box.top, "repo"), "--no-lock", "--no-cache", "check", "--read-data"],
      env,
    );
  } catch (error) {
    wrong.push(`restic check: ${(error as Error).message}`);
  }
  return wrong;
}

export const BOTH: readonly SoakVariant[] = [{ inplace: false }, { inplace: true }];

/** Selects `count` of all scenarios in both variants, evenly. */
export function spread(count: number, random: () => number): [SoakVariant, string][] {
  const all = BOTH.flatMap((variant) =>
    Object.keys(SOAK_SCENARIOS).map((name): [SoakVariant, string] => [variant, name]),
  );
  const order = all.map((one) => ({ one, key: random() })).toSorted((a, b) => a.key - b.key);
  return Array.from({ length: count }, (_, index) => order[index % order.length]!.one);
}

/** Kills commands at random times of their duration. */
export async function sweepRandomKills(
  { seed, point, labs, wanted }: SoakSweep,
  kills: number,
): Promise<void> {
  const random = seededRandom(seed);
  const plan = spread(kills, random).map(([variant, name], turn) => ({
    variant,
    name,
    turn,
    moment: random() * 1.05,
    withChildren: random() < 0.25,
  }));
  for (const variant of BOTH) {
    const mine = plan.filter(
      (one) => one.variant === variant && wanted(`kills:${one.name}:${soakVariantName(variant)}`),
    );
    if (mine.length === 0) continue;
    const lab = await labs.get(variant);
    const times = new Map<string, number>();
    for (const { name, turn, moment, withChildren } of mine) {
      const scenario = SOAK_SCENARIOS[name]!;
      if (!times.has(name)) {
        await lab.load(scenario.template);
        times.set(name, (await lab.ok(scenario.command)).seconds);
      }
      await lab.load(scenario.template);
      const killAfter = moment * times.get(name)! * 1000;
      const ran = await lab.run(scenario.command, { killAfter, withChildren });
      const violations = await judgeSoak(lab, scenario, ran, turn);
      const what = withChildren ? "all" : "vm";
      point(
        `kills:${name}:${soakVariantName(variant)}:${what}:${turn}:${Math.round(moment * 100)}%`,
        violations,
      );
    }
  }
}
