import { STDIN } from "../lib/standard-streams.ts";
import { printable } from "../lib/text.ts";
import { writeResult } from "../process/stdout.ts";
import { isTerminal } from "../process/terminal.ts";
import type { Context, Options } from "../vm/context.ts";
import { checkLine } from "./check.ts";
import { createMeter } from "./progress.ts";
import { isCommandName } from "./selecting.ts";
import { collectFacts } from "./surroundings.ts";

/** The context of commands. A Tab does without it, which would load what they are loaded with. */
export function buildContext(prog: string, version: string, options: Options): Context {
  const context: Context = {
    ...collectFacts(prog, version, options),
    meter: createMeter,
    ask: async (prompt, over) =>
      isTerminal(STDIN) ? (await import("./ask.ts")).askOnTerminal(prompt, over) : undefined,
    checkLine: (words) => checkLine(words, context),
    isCommand: isCommandName,
    manual: async () => (await import("./manual/page.ts")).buildManual(prog),
    print: (result) => writeResult(typeof result === "string" ? printable(result) : result),
  };
  return context;
}
