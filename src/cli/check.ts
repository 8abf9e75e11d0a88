import type { CommandContext, CommandDef } from "citty";
import type { CommandData } from "../commands/define.ts";
import type { Context } from "../vm/context.ts";
import { parseArgv } from "./argv.ts";
import type { Invocation } from "./invocation.ts";
import { loadCommand } from "./registry.ts";
import { unknownCommand } from "./suggest.ts";

/** A command of a batch, and what its `setup` made of its words. */
export interface Request {
  invocation: Invocation;
  definition: CommandDef<any>;
  request: unknown;
}

/** What citty would hand to a command; its own parser is too lenient to be asked. */
export const cittyContext = (
  cmd: CommandDef<any>,
  { args, rest }: Invocation,
  data: CommandData,
): CommandContext<any> => ({
  rawArgs: [],
  args: { ...args, _: rest } as unknown as CommandContext<any>["args"],
  cmd,
  data,
});

/** Parses the words of all commands, before the first one runs. @throws 64 */
export async function parseRequests(batch: readonly Invocation[], context: Context): Promise<Request[]> {
  const requests: Request[] = [];
  for (const invocation of batch) {
    const definition = await loadCommand(invocation.command.name);
    const request: unknown = await definition.setup?.(cittyContext(definition, invocation, { context }));
    requests.push({ invocation, definition, request });
  }
  return requests;
}

/** The same for a line that is to run later; a CD image alone is hardly meant. @throws 64 */
export async function checkLine(words: readonly string[], context: Context): Promise<void> {
  const { batch } = parseArgv(words, context.prog);
  const [alone] = batch;
  if (alone?.implicit && alone.words[0] !== undefined)
    throw unknownCommand(alone.words[0], context.prog, (name) => ["timer", name]);
  await parseRequests(batch, context);
}
