import { plain } from "../lib/text.ts";
import { parseSetting, type Settings } from "../config/schema.ts";
import { commandLine, programName } from "../lib/command-line.ts";
import { SignalError, VmError } from "../lib/errors.ts";
import { toJson } from "../lib/json.ts";
import { isQuiet, log, snapshotName } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { hasRules, PERIODS, type Rules, type Verdict } from "../store/retention.ts";
import { findGuestEnv } from "../store/workdir.ts";
import type { Context } from "../vm/context.ts";
import { openVm, type Vm } from "../vm/find.ts";
import { withVm } from "../vm/open.ts";
import { noVmIn } from "../store/no-vm.ts";
import { inspectSnapshots, type SnapshotInfo } from "../store/snapshot-info.ts";
import { decide, warnOfOdd, type Decision } from "./prune-decision.ts";
import { parseSeconds } from "../lib/seconds.ts";
import { canExchange, mergeSnapshot } from "./merge.ts";
import { discardSnapshots } from "./remove.ts";

export interface PruneRequest {
  /** What was typed; settings say the rest. */
  rules: Rules;
  dryRun: boolean;
  json: boolean;
  /** In the repository, not here. */
  remote: boolean;
  /** There: those without a UUID count that this host pushed from this directory, under its name. */
  byName: boolean;
  /** Snapshots that kept ones build on are merged into these. */
  merge: boolean;
  /** How long another command's change may still take. */
  waitMs: number | undefined;
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
  const wait = parseSeconds("lock-timeout", args["lock-timeout"] as string | undefined);
  return {
    rules,
    dryRun: args["dry-run"] === true,
    json: args.json === true,
    remote,
    byName,
    merge: args["no-merge"] !== true,
    waitMs: wait === undefined ? undefined : wait * 1000,
  };
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
  { rules: typed, dryRun, json, remote, byName, merge, waitMs }: PruneRequest,
): Promise<void> {
  if (remote) {
    const rules = resolveRules(context, await openVm(context), typed);
    return (await import("./remote/keep.ts")).pruneRemote(context, rules, { dryRun, json, byName });
  }
  const show = (vm: Vm, { all, verdicts }: Decision): void => {
    // A cron job in a wrong directory must not seem to work.
    if (all.length === 0 && vm.work.state === "none" && !findGuestEnv(vm.hostdir, vm.work))
      throw noVmIn(vm.hostdir);
    if (json || dryRun || !isQuiet())
      context.print(json ? toJson(verdicts.map(verdictForJson)) : formatVerdicts(verdicts));
  };
  if (dryRun) {
    const vm = await openVm(context);
    const decision = decide(vm, resolveRules(context, vm, typed), merge);
    warnOfOdd(decision);
    return show(vm, decision);
  }
  const change = async (vm: Vm): Promise<void> => {
    const decision = decideHere(context, vm, typed, merge);
    show(vm, decision);
    const { names, bytes } = await carryOut(context, vm, decision);
    log.success(`removed ${names.length} of ${decision.all.length} snapshots: ${formatSize(bytes)}`);
  };
  await withVm(context, "prune", change, { waitMs });
}

/** The decision for a change: some file systems cannot replace a snapshot in one step. */
function decideHere(context: Context, vm: Vm, typed: Rules, merge: boolean): Decision {
  const rules = resolveRules(context, vm, typed);
  const decision = decide(vm, rules, merge);
  warnOfOdd(decision);
  if (!decision.verdicts.some(({ into }) => into.length > 0) || canExchange(vm.hostdir)) return decision;
  log.warn("cannot merge: this file system cannot exchange two names; snapshots that others build on stay");
  return decide(vm, rules, false);
}

/**
 * Removes what is to go, and merges what others build on: newest first, so that the large full one at a chain's end is
 * read and written once. Without room for a merge, what it is for stays, with a warning: removing makes room, and must
 * work where there is none.
 * @returns the names, and by how many bytes less is occupied
 * @throws 74 where a merge cannot read or write: others may be gone
 */
async function carryOut(
  context: Context,
  vm: Vm,
  { all, verdicts }: Decision,
): Promise<{ names: string[]; bytes: number }> {
  const gone = verdicts.filter(({ keep }) => !keep);
  const removed = gone.filter(({ into }) => into.length === 0).map(({ name }) => name);
  discardSnapshots(vm.hostdir, all, new Set(removed));
  const depths = new Map(all.map(({ snapshot }) => [snapshot.name, depthOf(all, snapshot.name)]));
  const waiting = gone
    .filter(({ into }) => into.length > 0)
    .map(({ name }) => name)
    .toSorted((one, other) => depths.get(other)! - depths.get(one)!);
  for (const [at, name] of waiting.entries()) {
    try {
      await mergeSnapshot(context, vm, name);
      removed.push(name);
    } catch (error) {
      if (error instanceof SignalError || !(error instanceof VmError)) throw error;
      const stay = waiting.slice(at).map(plain).join(", ");
      if (error.code !== "cannotCreate")
        throw new VmError(error.code, `pruned in part: ${error.message}; not merged: ${stay}`, {
          cause: error,
          hint: "verify --all tells which are damaged; to leave such snapshots: --no-merge",
        });
      log.warn(`not merged, and kept: ${stay}: ${error.message}`);
      break;
    }
  }
  const bytes = Math.max(0, sumAddedBytes(all) - sumAddedBytes(inspectSnapshots(vm.hostdir)));
  return { names: removed, bytes };
}

const sumAddedBytes = (known: readonly SnapshotInfo[]): number =>
  known.reduce((sum, { facts }) => sum + facts.addedBytes, 0);

/** How many others a snapshot builds on. */
function depthOf(all: readonly SnapshotInfo[], name: string): number {
  const byName = new Map(all.map(({ facts }) => [facts.name, facts.parent]));
  const seen = new Set<string>();
  for (let item = byName.get(name); item && !seen.has(item); item = byName.get(item)) seen.add(item);
  return seen.size;
}

/**
 * The same behind a backup. What is wrong with the rules is told before; a failure later leaves the snapshot.
 * @throws 74 when the snapshot is made, but not the old ones removed
 */
export async function backupAndPrune(
  context: Context,
  backup: () => Promise<void>,
  { rules, waitMs }: { rules: Rules; waitMs: number | undefined },
): Promise<void> {
  resolveRules(context, await openVm(context), rules, ["backup", "--prune"]);
  await backup();
  const prune = async (vm: Vm): Promise<void> => {
    const { names, bytes } = await carryOut(context, vm, decideHere(context, vm, rules, true));
    if (names.length > 0)
      log.info(`removed old snapshots: ${names.map(snapshotName).join(", ")}: ${formatSize(bytes)}`);
  };
  try {
    await withVm(context, "prune", prune, { waitMs });
  } catch (error) {
    if (error instanceof SignalError || !(error instanceof VmError)) throw error;
    throw new VmError("io", `the snapshot is made, but old ones could not be removed: ${error.message}`, {
      cause: error,
      hint: error.hint,
    });
  }
}

const verdictForJson = ({ name, made, keep, reasons, into }: Verdict): object => ({
  name,
  made,
  action: keep ? "keep" : into.length > 0 ? "merge" : "remove",
  reasons,
  into,
});

/** `keep S3  daily, weekly`, `remove S1`, `merge S2  into S3` */
const formatVerdicts = (verdicts: readonly Verdict[]): string => verdicts.map(formatVerdict).join("");

function formatVerdict({ name, keep, reasons, into }: Verdict): string {
  if (keep) return `keep ${plain(name)}  ${plain(reasons.join(", "))}\n`;
  return into.length > 0
    ? `merge ${plain(name)}  into ${plain(into.join(", "))}\n`
    : `remove ${plain(name)}\n`;
}
