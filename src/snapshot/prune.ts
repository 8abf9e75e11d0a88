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
import { decide, warnAboutUncounted, type Decision } from "./prune-decision.ts";
import { parseSeconds } from "../lib/seconds.ts";
import { canExchange, mergeSnapshot } from "./merge.ts";
import { discardSnapshots } from "./remove.ts";

export interface PruneRequest {
  /** Rules from options; if there are none, the settings apply. */
  rules: Rules;
  dryRun: boolean;
  json: boolean;
  /** Prune the repository. */
  remote: boolean;
  /** With `remote`: count snapshots without a UUID that were pushed from this host and directory. */
  byName: boolean;
  /** Merge snapshots into kept ones that depend on them. */
  merge: boolean;
  /** How long to wait for the VM's lock. */
  waitMs: number | undefined;
}

const settingOf = (period: string) => `KEEP_${period.toUpperCase()}` as keyof Settings & `KEEP_${string}`;

/** Rules from options. @throws 64 for an invalid count */
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

/** The same for `backup`. @throws 64 for rules without --prune */
export function parseRetention(args: Record<string, unknown>): Rules {
  const rules = parseRules(args);
  const [first] = Object.keys(rules);
  if (args.prune === true || first === undefined) return rules;
  throw new VmError("usage", `backup: --keep-${first} needs --prune`, {
    hint: `create a snapshot, then remove old ones: ${commandLine("backup", "--prune", ...formatRules(rules))}`,
  });
}

/** Formats rules as options. */
const formatRules = (rules: Rules): string[] =>
  PERIODS.flatMap((period) => (rules[period] === undefined ? [] : `--keep-${period}=${rules[period]}`));

/** @throws 64 for an invalid count */
export function parsePruneRequest(args: Record<string, unknown>): PruneRequest {
  const rules = parseRules(args);
  const remote = args.remote === true;
  const byName = args["by-name"] === true;
  if (byName && !remote)
    throw new VmError("usage", "prune: --by-name needs --remote", {
      hint: `give both: ${commandLine("prune", "--remote", "--by-name", ...formatRules(hasRules(rules) ? rules : EXAMPLE_RULES))}`,
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

const EXAMPLE_RULES: Rules = { daily: 7, weekly: 4 };

/** Rules for a hint: those in the environment, which prune does not read, or an example. */
function suggestRules({ env }: Context): Rules {
  const found = PERIODS.flatMap((period) => {
    const given = env[settingOf(period)];
    return given !== undefined && /^[1-9]\d{0,5}$/.test(given) ? [[period, Number(given)]] : [];
  });
  return found.length > 0 ? Object.fromEntries(found) : EXAMPLE_RULES;
}

/**
 * @param words the command, for the hint
 * @throws 64 without rules, as that must not remove everything
 */
function resolveRules(context: Context, { settings }: Vm, typed: Rules, words = ["prune"]): Rules {
  const noted = PERIODS.map((period) => [period, settings[settingOf(period)]] as const);
  const rules: Rules = { ...Object.fromEntries(noted), ...typed };
  if (hasRules(rules)) return rules;
  const given = PERIODS.some((period) => rules[period] !== undefined);
  throw new VmError(
    "usage",
    `cannot prune: ${given ? "0 is no retention rule" : "no retention rules given"}`,
    {
      hint: `give rules: ${commandLine(...words, ...formatRules(suggestRules(context)))}\nor set KEEP_DAILY=7 in ~/.config/${programName()}.conf`,
    },
  );
}

/** Removes the snapshots that no rule keeps, and prints the action for each. */
export async function pruneVm(
  context: Context,
  { rules: typed, dryRun, json, remote, byName, merge, waitMs }: PruneRequest,
): Promise<void> {
  if (remote) {
    const rules = resolveRules(context, await openVm(context), typed);
    return (await import("./remote/keep.ts")).pruneRemote(context, rules, { dryRun, json, byName });
  }
  const show = (vm: Vm, { all, verdicts }: Decision): void => {
    // A cron job in a wrong directory must fail visibly.
    if (all.length === 0 && vm.work.state === "none" && !findGuestEnv(vm.hostdir, vm.work))
      throw noVmIn(vm.hostdir);
    if (json || dryRun || !isQuiet())
      context.print(json ? toJson(verdicts.map(verdictForJson)) : formatVerdicts(verdicts));
  };
  if (dryRun) {
    const vm = await openVm(context);
    const decision = decide(vm, resolveRules(context, vm, typed), merge);
    warnAboutUncounted(decision);
    return show(vm, decision);
  }
  const change = async (vm: Vm): Promise<void> => {
    const decision = decideForFilesystem(context, vm, typed, merge);
    show(vm, decision);
    const { names, bytes } = await removeAndMerge(context, vm, decision);
    log.success(`removed ${names.length} of ${decision.all.length} snapshots: ${formatSize(bytes)}`);
  };
  await withVm(context, "prune", change, { waitMs });
}

/** Decides without merging if the filesystem cannot replace a snapshot atomically. */
function decideForFilesystem(context: Context, vm: Vm, typed: Rules, merge: boolean): Decision {
  const rules = resolveRules(context, vm, typed);
  const decision = decide(vm, rules, merge);
  warnAboutUncounted(decision);
  if (!decision.verdicts.some(({ into }) => into.length > 0) || canExchange(vm.hostdir)) return decision;
  log.warn(
    "cannot merge: the filesystem cannot exchange two names (renameat2); keeping snapshots that others build on",
  );
  return decide(vm, rules, false);
}

/**
 * Removes and merges snapshots, newest first, so that the large full one at a chain's end is read and written once.
 * Without space for a merge its snapshot is kept, with a warning: pruning must work on a full filesystem, too.
 * @returns the names, and the bytes freed
 * @throws 74 if a merge cannot read or write; others may be removed already
 */
async function removeAndMerge(
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
      if (error.code !== "cannotCreate" && error.code !== "busy")
        throw new VmError(error.code, `pruned in part: ${error.message}; not merged: ${stay}`, {
          cause: error,
          hint: `list damaged snapshots: ${commandLine("verify", "--all")}\nkeep those that others need: --no-merge`,
        });
      log.warn(`kept, as not merged: ${stay}: ${error.message}`);
      break;
    }
  }
  const bytes = Math.max(0, sumAddedBytes(all) - sumAddedBytes(inspectSnapshots(vm.hostdir)));
  return { names: removed, bytes };
}

const sumAddedBytes = (known: readonly SnapshotInfo[]): number =>
  known.reduce((sum, { facts }) => sum + facts.addedBytes, 0);

/** Counts a snapshot's parents. */
function depthOf(all: readonly SnapshotInfo[], name: string): number {
  const byName = new Map(all.map(({ facts }) => [facts.name, facts.parent]));
  const seen = new Set<string>();
  for (let item = byName.get(name); item && !seen.has(item); item = byName.get(item)) seen.add(item);
  return seen.size;
}

/**
 * Prunes after a backup. The rules are checked before it; a failure of the pruning keeps the new snapshot.
 * @throws 74 if the snapshot was created, but old ones could not be removed
 */
export async function backupAndPrune(
  context: Context,
  backup: () => Promise<void>,
  { rules, waitMs }: { rules: Rules; waitMs: number | undefined },
): Promise<void> {
  resolveRules(context, await openVm(context), rules, ["backup", "--prune"]);
  await backup();
  const prune = async (vm: Vm): Promise<void> => {
    const { names, bytes } = await removeAndMerge(context, vm, decideForFilesystem(context, vm, rules, true));
    if (names.length > 0)
      log.info(`removed old snapshots: ${names.map(snapshotName).join(", ")}: ${formatSize(bytes)}`);
  };
  try {
    await withVm(context, "prune", prune, { waitMs });
  } catch (error) {
    if (error instanceof SignalError || !(error instanceof VmError)) throw error;
    throw new VmError("io", `the snapshot was created, but old ones could not be removed: ${error.message}`, {
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
