import { plain } from "../lib/text.ts";
import { parseSetting, type Settings } from "../config/schema.ts";
import { commandLine, programName } from "../lib/command-line.ts";
import { SignalError, VmError } from "../lib/errors.ts";
import { toJson } from "../lib/json.ts";
import { isQuiet, log, snapshotName } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { formatTimestamp } from "../lib/time.ts";
import { decideRetention, hasRules, PERIODS, type Rules, type Verdict } from "../store/retention.ts";
import { findGuestEnv } from "../store/workdir.ts";
import type { Context } from "./context.ts";
import { disksOnSnapshots, parentsOf } from "./dependents.ts";
import { foreignUuid, identityOf } from "./identity.ts";
import { noVmIn, openVm, withVm, type Vm } from "./open.ts";
import { knowSnapshots, type Known } from "./snapshot-facts.ts";
import { findDamage } from "./snapshot-damage.ts";
import { discardSnapshots } from "./snapshot-remove.ts";

export interface PruneRequest {
  /** What was typed; settings say the rest. */
  rules: Rules;
  dryRun: boolean;
  json: boolean;
  /** In the repository, not here. */
  remote: boolean;
  /** There: those without a UUID count that this host pushed from this directory, under its name. */
  byName: boolean;
}

const settingOf = (period: string) => `KEEP_${period.toUpperCase()}` as keyof Settings & `KEEP_${string}`;

/** The rules that are typed. @throws 64 for a count that is none */
function parseRules(args: Record<string, unknown>): Rules {
  const rules: Rules = {};
  for (const period of PERIODS) {
    const given = args[`keep-${period}`];
    if (given === undefined) continue;
    const parsed = parseSetting(settingOf(period), given as string);
    if (!("value" in parsed))
      throw new VmError("usage", `--keep-${period}: '${given as string}' is not allowed`, {
        hint: `allowed: ${parsed.allowed}`,
      });
    rules[period] = parsed.value as number | undefined;
  }
  return rules;
}

/** The same behind `backup`. @throws 64 for rules without --prune */
export function parseRetention(args: Record<string, unknown>): Rules {
  const rules = parseRules(args);
  const [first] = Object.keys(rules);
  if (args.prune === true || first === undefined) return rules;
  throw new VmError("usage", `backup: --keep-${first} needs --prune`, {
    hint: `make a snapshot, then remove old ones: ${commandLine("backup", "--prune", ...wordsOf(rules))}`,
  });
}

/** Rules as options. */
const wordsOf = (rules: Rules): string[] =>
  PERIODS.flatMap((period) => (rules[period] === undefined ? [] : `--keep-${period}=${rules[period]}`));

/** @throws 64 for a count that is none */
export function parsePruneRequest(args: Record<string, unknown>): PruneRequest {
  const rules = parseRules(args);
  const remote = args.remote === true;
  const byName = args["by-name"] === true;
  if (byName && !remote)
    throw new VmError("usage", "prune: --by-name goes with --remote", {
      hint: `both: ${commandLine("prune", "--remote", "--by-name", ...wordsOf(hasRules(rules) ? rules : USUAL))}`,
    });
  return { rules, dryRun: args["dry-run"] === true, json: args.json === true, remote, byName };
}

const USUAL: Rules = { daily: 7, weekly: 4 };

/** Rules for a hint: those of the environment, which is not read, or some that fit most. */
function rulesToTry({ env }: Context): Rules {
  const found = PERIODS.flatMap((period) => {
    const given = env[settingOf(period)];
    return given !== undefined && /^[1-9]\d{0,5}$/.test(given) ? [[period, Number(given)]] : [];
  });
  return found.length > 0 ? Object.fromEntries(found) : USUAL;
}

/**
 * @param words the command, for the hint
 * @throws 64 where there are none: that must not mean that nothing stays
 */
function resolveRules(context: Context, { settings }: Vm, typed: Rules, words = ["prune"]): Rules {
  const noted = PERIODS.map((period) => [period, settings[settingOf(period)]] as const);
  const rules: Rules = { ...Object.fromEntries(noted), ...typed };
  if (hasRules(rules)) return rules;
  throw new VmError("usage", "cannot prune: nothing says which snapshots stay", {
    hint: `say it: ${commandLine(...words, ...wordsOf(rulesToTry(context)))}\nor set KEEP_DAILY=7 in ~/.config/${programName()}.conf`,
  });
}

/** Removes the snapshots that no rule keeps, and prints what is done with each. */
export async function pruneVm(
  context: Context,
  { rules: typed, dryRun, json, remote, byName }: PruneRequest,
): Promise<void> {
  if (remote) {
    const rules = resolveRules(context, await openVm(context), typed);
    return (await import("./remote/keep.ts")).pruneRemote(context, rules, { dryRun, json, byName });
  }
  const use = (vm: Vm): void => {
    const { all, verdicts } = decide(context, vm, typed);
    // A cron job in a wrong directory must not seem to work.
    if (all.length === 0 && vm.work.state === "none" && !findGuestEnv(vm.hostdir, vm.work))
      throw noVmIn(vm.hostdir);
    if (json || dryRun || !isQuiet())
      context.print(json ? toJson(verdicts.map(forPrograms)) : formatVerdicts(verdicts));
    if (dryRun) return;
    const chosen = chosenOf(verdicts);
    const bytes = discardSnapshots(vm.hostdir, all, chosen);
    log.success(`removed ${chosen.size} of ${all.length} snapshots: ${formatSize(bytes)}`);
  };
  if (dryRun) use(await openVm(context));
  else await withVm(context, "prune", async (vm) => use(vm));
}

/**
 * The same behind a backup. What is wrong with the rules is told before; a failure later leaves the snapshot.
 * @throws 74 when the snapshot is made, but not the old ones removed
 */
export async function backupAndPrune(
  context: Context,
  typed: Rules,
  backup: () => Promise<void>,
): Promise<void> {
  resolveRules(context, await openVm(context), typed, ["backup", "--prune"]);
  await backup();
  try {
    await withVm(context, "prune", async (vm) => {
      const { all, verdicts } = decide(context, vm, typed);
      const chosen = chosenOf(verdicts);
      const bytes = discardSnapshots(vm.hostdir, all, chosen);
      if (chosen.size > 0)
        log.info(`removed old snapshots: ${[...chosen].map(snapshotName).join(", ")}: ${formatSize(bytes)}`);
    });
  } catch (error) {
    if (error instanceof SignalError || !(error instanceof VmError)) throw error;
    throw new VmError("io", `the snapshot is made, but old ones could not be removed: ${error.message}`, {
      cause: error,
      hint: error.hint,
    });
  }
}

function decide(context: Context, vm: Vm, typed: Rules): { all: Known[]; verdicts: Verdict[] } {
  const rules = resolveRules(context, vm, typed);
  const all = knowSnapshots(vm.hostdir);
  const disks = disksOnSnapshots(vm.work);
  const byName = new Map(all.map(({ snapshot }) => [snapshot.name, snapshot]));
  const looked = new Map<string, string | undefined>();
  const damage = new Map(
    all.map(({ snapshot, facts }) => [
      facts.name,
      facts.problem ?? findDamage(snapshot, (name) => byName.get(name), looked),
    ]),
  );
  const own = identityOf(vm);
  const candidates = all.map(({ snapshot, facts }) => ({
    name: facts.name,
    made: facts.made,
    last: facts.last,
    protected: facts.protected,
    damaged: damage.get(facts.name) !== undefined,
    foreign: foreignUuid(own, snapshot.manifest?.vm) !== undefined,
    parents: parentsOf(snapshot),
    disks: disks.get(facts.name) ?? [],
  }));
  const verdicts = decideRetention(candidates, rules, new Date());
  for (const { name, made, future } of verdicts)
    if (future)
      log.warn(
        `${plain(name)} has a timestamp in the future (${formatTimestamp(made)}): it stays, and counts for no rule`,
      );
  for (const { name, foreign } of candidates)
    if (foreign) log.warn(`${plain(name)} is of another VM: it stays, and counts for no rule`);
  for (const { name, newer } of all.map(({ facts }) => facts)) {
    const problem = damage.get(name);
    if (problem !== undefined)
      log.warn(`${plain(name)} ${newer ? "cannot be read" : "is damaged"} and stays: ${plain(problem)}`);
  }
  return { all, verdicts };
}

const chosenOf = (verdicts: readonly Verdict[]): Set<string> =>
  new Set(verdicts.filter(({ keep }) => !keep).map(({ name }) => name));

const forPrograms = ({ name, made, keep, reasons }: Verdict): object => ({
  name,
  made,
  action: keep ? "keep" : "remove",
  reasons,
});

/** `keep S3  daily, weekly` */
const formatVerdicts = (verdicts: readonly Verdict[]): string =>
  verdicts
    .map(({ name, keep, reasons }) =>
      keep ? `keep ${plain(name)}  ${plain(reasons.join(", "))}\n` : `remove ${plain(name)}\n`,
    )
    .join("");
