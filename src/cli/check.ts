import type { CommandContext, CommandDef } from "citty";
import type { CommandData } from "../commands/define.ts";
import type { Context } from "../vm/context.ts";
import { parseArgv } from "./argv.ts";
import type { Invocation } from "./invocation.ts";
import { LOADERS } from "./loaders.ts";
import { unknownCommand } from "./suggest.ts";

/** A command of a batch, with the request that its `setup` returned. */
export interface Request {
  invocation: Invocation;
  definition: CommandDef<any>;
  request: unknown;
}

/** The context that citty would pass to a command; its own parser is too lenient. */
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

/** Loads the definition of a command. */
const loadCommand = async (name: string): Promise<CommandDef<any>> =>
  (await LOADERS[name as keyof typeof LOADERS]()).default;

/** Parses the words of all commands, before the first one runs. @throws 64 */
export async function parseRequests(batch: readonly Invocation[], outer: Context): Promise<Request[]> {
  const context = { ...outer, batch: batch.map(({ command }) => command.name) };
  const requests: Request[] = [];
  for (const invocation of batch) {
    const definition = await loadCommand(invocation.command.name);
    const request: unknown = await definition.setup?.(cittyContext(definition, invocation, { context }));
    requests.push({ invocation, definition, request });
  }
  return requests;
}

/** The same for a line that runs later. Refuses a CD image alone, most likely a mistake. @throws 64 */
export async function checkLine(words: readonly string[], context: Context): Promise<void> {
  const { batch } = parseArgv(words, context.prog);
  const [alone] = batch;
  if (alone?.implicit && alone.words[0] !== undefined)
    throw unknownCommand(alone.words[0], context.prog, (name) => ["timer", name]);
  await parseRequests(batch, context);
}
