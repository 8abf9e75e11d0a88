import { commandLine } from "./command-line.ts";
import { VmError } from "./errors.ts";
import { nearest } from "./nearest.ts";
import { either } from "./text.ts";

/** Names that other programs have for the same action. */
const SYNONYMS: readonly (readonly string[])[] = [
  ["list", "ls", "show", "status"],
  ["add", "create", "new", "attach"],
  ["remove", "rm", "del", "delete", "detach"],
  ["resize", "grow", "extend", "expand"],
];

/** The action that a word probably means: one of the same meaning, or of a similar spelling. */
export function similarAction<T extends string>(word: string, actions: readonly T[]): T | undefined {
  const group = SYNONYMS.find((words) => words.includes(word.toLowerCase())) ?? [];
  const meant = group.find((one) => actions.some((action) => action === one)) ?? nearest(word, actions);
  return actions.find((action) => action === meant);
}

/**
 * Parses the first word behind a command.
 * @param hint for a word that is like none of the actions
 * @throws 64
 */
export function parseAction<T extends string>(
  command: string,
  word: string,
  actions: readonly T[],
  hint = `help: ${commandLine(command, "-h")}`,
): T {
  const action = actions.find((one) => one === word);
  if (action !== undefined) return action;
  const similar = similarAction(word, actions);
  throw new VmError("usage", `${command}: '${word}' is not ${either(actions)}`, {
    hint: similar === undefined ? hint : `did you mean '${similar}'? help: ${commandLine(command, "-h")}`,
  });
}
