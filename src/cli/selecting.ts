import { LABEL_SYNTAX } from "../config/machine-values.ts";
import { VmError } from "../lib/errors.ts";
import { isLabel } from "../lib/text.ts";
import type { Command } from "./command.ts";
import { COMMANDS } from "./registry.ts";

/** Commands that one line runs for several VMs, one after another. */
const FOR_EACH: ReadonlySet<string> = new Set([
  "run",
  "stop",
  "restart",
  "pause",
  "resume",
  "suspend",
  "set",
  "backup",
  "prune",
  "verify",
  "job",
  "exec",
]);

/** Commands that show several VMs. */
const SHOWING: ReadonlySet<string> = new Set(["list", "top"]);

export const showsSeveral = (name: string): boolean => SHOWING.has(name);
export const takesLabels = (name: string): boolean => FOR_EACH.has(name) || SHOWING.has(name);

/** The argument that selects VMs by a label, for helps: its name, and what it means. */
export const labelArgument = (name: string): readonly (readonly [string, string])[] =>
  takesLabels(name) ? [["@LABEL", "the VMs with this label (LABELS)"]] : [];

/** `@stop` is the command, not a label. */
export const isCommandName = (label: string): boolean => COMMANDS.has(label) || label === "help";

/**
 * The label of `@web`, after a single command. The name of a command is none: with it begins the next command of a
 * batch.
 */
export function labelBehind(word: string | undefined): string | undefined {
  const label = word?.startsWith("@") ? word.slice(1) : undefined;
  return label !== undefined && isLabel(label) && !isCommandName(label) ? label : undefined;
}

/** A word after a single command that is meant as a label; a path may contain `@` too. @throws 64 */
export function refuseBadLabel(word: string | undefined, command: string): void {
  if (word === undefined || !/^@[^@/\s]*$/.test(word) || isLabel(word.slice(1))) return;
  throw new VmError("usage", `${command}: '${word}' is neither a command nor a label`, {
    hint: `a label has ${LABEL_SYNTAX}; an argument that begins with @ stands after --`,
  });
}

/** `status @web`: a label after a command that is about one VM. @param unknown the error of an unknown command @param listing `vm list @web` */
export function explainLabel(unknown: VmError, word: string, command: string, listing: string): VmError {
  if (takesLabels(command) || labelBehind(word) === undefined) return unknown;
  return new VmError("usage", `'${word}' is not a command, and ${command} takes no label`, {
    hint: `${unknown.hint}\nto see the VMs with that label: ${listing}`,
  });
}

/** `set LABELS=stop`: `@stop` would be the command. @throws 64 */
export function refuseCommandLabels(assignments: readonly string[]): void {
  const labels = assignments.flatMap((word) => /^LABELS=(.*)$/s.exec(word)?.[1]?.split(/[\s,]+/) ?? []);
  const taken = labels.find(isCommandName);
  if (taken !== undefined)
    throw new VmError("usage", `set: the label '${taken}' is not allowed: it is the name of a command`, {
      hint: `@${taken} would be the command: use another label`,
    });
}

/** @throws 64 for a command that is about one VM, and for a VM that is named as well */
export function requireSelecting(
  batch: readonly { command: Command; args: Readonly<Record<string, unknown>> }[],
  hostdir: string | undefined,
): void {
  if (hostdir !== undefined)
    throw new VmError("usage", "--hostdir and a label cannot be combined", {
      hint: "name the VM, or the label of several VMs",
    });
  const other = batch.find(({ command: { name } }) => !takesLabels(name));
  if (other)
    throw new VmError("usage", `${other.command.name}: cannot be run for several VMs by a label`, {
      hint: `commands that can: ${[...SHOWING, ...FOR_EACH].join(" ")}`,
    });
  const attached = batch.find(({ command: { name }, args }) => name === "run" && args.detach !== true);
  if (attached)
    throw new VmError("usage", "run: several VMs cannot be run in the foreground", {
      hint: "run them in the background: --detach",
    });
  if (batch.length > 1 && batch.some(({ command: { name } }) => SHOWING.has(name)))
    throw new VmError("usage", "list and top cannot be combined with other commands on a line with a label");
}
