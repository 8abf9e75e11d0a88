import { programName } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { didYouMean } from "../lib/nearest.ts";
import { either } from "../lib/text.ts";

/** Parses the first word behind a command. @throws 64 */
export function parseAction<T extends string>(command: string, word: string, actions: readonly T[]): T {
  const action = actions.find((one) => one === word);
  if (action !== undefined) return action;
  throw new VmError("usage", `${command}: '${word}' is not ${either(actions)}`, {
    hint: `${didYouMean(word, actions)}help: ${programName()} ${command} -h`,
  });
}
