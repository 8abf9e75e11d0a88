import { badOption } from "../config/complaint.ts";
import { parseSetting } from "../config/schema.ts";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { toJson } from "../lib/json.ts";
import { log } from "../lib/log.ts";
import { formatTable } from "../lib/table.ts";
import { parseHostForward } from "../machine/parse.ts";
import { updateRun } from "../store/mark.ts";
import type { Context } from "../vm/context.ts";
import { requireWork, type Vm } from "../vm/find.ts";
import { effectiveForwards } from "../vm/nics.ts";
import { withVm } from "../vm/open.ts";
import { readMachines } from "../vm/machines.ts";
import { findRun, withoutTyped, type Run } from "../vm/running-settings.ts";
import { formatWhen } from "../vm/status-text.ts";
import { storeSettings } from "../vm/store-settings.ts";
import { parseAction } from "../lib/action.ts";
import { FORWARD_ACTIONS, type ForwardAction } from "./choices.ts";
import { changeForwards, isHostRule, noCard, ruleOf } from "./live-forwards.ts";

export interface ForwardRequest {
  action: ForwardAction;
  /** add: options of `-netdev user`; remove: rules, or ports of the host. */
  words: string[];
  /** Not stored: until the VM is off. */
  temporary: boolean;
  json: boolean;
}

interface ForwardWords {
  action: string;
  rule?: string[] | undefined;
  temporary?: boolean | undefined;
  json?: boolean | undefined;
}

/** @throws 64 */
export function parseForwardRequest({
  action: given,
  rule = [],
  temporary,
  json,
}: ForwardWords): ForwardRequest {
  const action = parseAction("forward", given, FORWARD_ACTIONS);
  if (action === "list" && (rule.length > 0 || temporary))
    throw new VmError("usage", "forward list: takes no rules, and no --temporary");
  if (action !== "list" && json) throw new VmError("usage", `forward ${action}: --json is for list`);
  if (action !== "list" && rule.length === 0)
    throw new VmError("usage", `forward ${action}: RULE is missing`, {
      hint: "such as tcp:127.0.0.1:5555-:22",
    });
  const words = action === "add" ? rule.flatMap((word) => parseForwardRules(word, rule)) : rule;
  if (action === "add") {
    const other = words.find((option) => !/^(hostfwd|guestfwd)=/.test(option));
    if (other !== undefined)
      throw new VmError("usage", `forward add: '${other}' is not a port forward`, {
        hint: `other options of qemu's -netdev user: ${commandLine("set", "FORWARDS=…")}`,
      });
    requireValid(words);
  }
  return { action, words, temporary: temporary === true, json: json === true };
}

function parseForwardRules(word: string, words: readonly string[]): string[] {
  const parsed = parseSetting("FORWARDS", word);
  if (!("value" in parsed) || word === "") {
    const { allowed = "a rule", meant = undefined } = "value" in parsed ? {} : parsed;
    const better = meant === word ? undefined : meant;
    const line = better && commandLine("forward", "add", ...words.with(words.indexOf(word), better));
    throw badOption("forward add", word, allowed, line);
  }
  return parsed.value as string[];
}

/** @throws 64 if two of them use the same port of this host */
function requireValid(options: readonly string[]): void {
  const parsed = parseSetting("FORWARDS", options.join(","));
  if (!("value" in parsed)) throw badOption("forward add", parsed.given ?? "", parsed.allowed);
}

export async function runForward(context: Context, request: ForwardRequest): Promise<void> {
  const own = withoutTyped(context);
  if (request.action === "list") return listForwards(own, request.json);
  await withVm(own, `${request.action} a forward`, async (vm) => {
    requireWork(vm, `${request.action} a forward`);
    const run = await findRun(own, vm);
    if (request.temporary && run === undefined)
      throw new VmError("noInput", `forward ${request.action} --temporary: the VM is not running`, {
        hint: `for one run: ${commandLine("run", "--forward=RULE")}`,
      });
    await (request.action === "add" ? addForwards : removeForwards)(vm, run, request);
  });
}

async function addForwards(
  vm: Vm,
  run: Run | undefined,
  { words, temporary }: ForwardRequest,
): Promise<void> {
  const stored = vm.settings.FORWARDS;
  const next = temporary ? stored : union(stored, words);
  requireValid(next);
  if (run === undefined && effectiveForwards({ ...vm.settings, FORWARDS: next }).length === 0) throw noCard();
  if (run) {
    const after = union(run.record.forwards, words);
    requireValid(after);
    const others = words.filter((option) => !isHostRule(option));
    if (temporary && others.length > 0)
      throw new VmError("usage", `forward add --temporary: '${others[0]!}' cannot be added to a running VM`);
    await changeForwards(run, after);
    // What is stored would be added twice by `restart`.
    const typed = run.record.typed.additions.FORWARDS ?? [];
    recordTyped(run, temporary ? union(typed, words) : typed.filter((rule) => !includesRule(words, rule)));
    if (others.length > 0) log.info(`${others.map(ruleOf).join(", ")}: from the next run on`);
  }
  if (!temporary) storeForwards(vm, "add a forward", next);
  for (const option of words) log.success(`forwards ${ruleOf(option)}${temporary ? " in this run" : ""}`);
}

async function removeForwards(
  vm: Vm,
  run: Run | undefined,
  { words, temporary }: ForwardRequest,
): Promise<void> {
  const stored = vm.settings.FORWARDS;
  const known = union(run?.record.forwards ?? [], temporary ? [] : stored);
  const found = words.map((word) => findRule(word, known));
  if (run) {
    await changeForwards(
      run,
      run.record.forwards.filter((option) => !found.includes(option)),
    );
    recordTyped(
      run,
      (run.record.typed.additions.FORWARDS ?? []).filter((rule) => !includesRule(found, rule)),
    );
  }
  if (!temporary)
    storeForwards(
      vm,
      "remove a forward",
      stored.filter((option) => !found.includes(option)),
    );
  for (const option of found)
    log.success(`removed ${ruleOf(option)}${run && !isHostRule(option) ? " from the next run on" : ""}`);
}

const union = (one: readonly string[], other: readonly string[]): string[] => [
  ...new Set([...one, ...other]),
];

/** Is a rule, with or without `hostfwd=`, among these options? */
const includesRule = (options: readonly string[], rule: string): boolean =>
  options.some((option) => ruleOf(option) === ruleOf(rule));

/** The option that a rule or a port of the host means. @throws 66, or 64 if several use the port */
function findRule(word: string, known: readonly string[]): string {
  const fitting = known.filter(
    (option) =>
      ruleOf(option) === ruleOf(word) ||
      (isHostRule(option) && String(parseHostForward(ruleOf(option))?.hostPort) === word),
  );
  if (fitting.length === 1) return fitting[0]!;
  if (fitting.length > 1)
    throw new VmError("usage", `forward remove: ${word} is ambiguous: ${fitting.map(ruleOf).join(", ")}`);
  throw new VmError("noInput", `forward remove: no such forward: ${word}`, {
    hint: `list them: ${commandLine("forward", "list")}`,
  });
}

const recordTyped = ({ work, record: { typed } }: Run, FORWARDS: string[]): void =>
  updateRun(work.dir, { typed: { ...typed, additions: { ...typed.additions, FORWARDS } } });

function storeForwards(vm: Vm, command: string, forwards: readonly string[]): void {
  if (forwards.join() !== vm.settings.FORWARDS.join())
    storeSettings(vm, command, { FORWARDS: forwards.join(",") });
}

async function listForwards(context: Context, json: boolean): Promise<void> {
  const { running, next } = await readMachines(context);
  const all = union(running?.forwards ?? [], next.forwards);
  const rows = all.map((option) => {
    const rule = isHostRule(option) ? parseHostForward(ruleOf(option)) : undefined;
    return {
      rule: ruleOf(option),
      ...rule,
      running: running?.forwards.includes(option) ?? null,
      nextRun: next.forwards.includes(option),
    };
  });
  if (json) return context.print(toJson(rows));
  context.print(
    rows.length === 0
      ? ""
      : formatTable([
          ["RULE", "WHEN"],
          ...rows.map((row) => [row.rule, formatWhen(row.running, row.nextRun)]),
        ]),
  );
}
