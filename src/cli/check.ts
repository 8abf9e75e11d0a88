import type { CommandContext } from "citty";
import type { Context } from "../vm/context.ts";
import { parseArgv } from "./argv.ts";
import type { Invocation } from "./invocation.ts";
import { unknownCommand } from "./suggest.ts";

/** What citty would hand to a command; its own parser is too lenient to be asked. */
export const cittyContext = ({ command, args, rest }: Invocation, data: Context): CommandContext<any> => ({
  rawArgs: [],
  args: { ...args, _: rest } as unknown as CommandContext<any>["args"],
  cmd: command.definition,
  data,
});

/** What can be told of the words alone, before the first command runs. @throws 64 */
export async function checkBatch(batch: readonly Invocation[], context: Context): Promise<void> {
  for (const invocation of batch)
    await invocation.command.definition.setup?.(cittyContext(invocation, context));
}

/** The same for a line that is to run later; a CD image alone is hardly meant. @throws 64 */
export async function checkLine(words: readonly string[], context: Context): Promise<void> {
  const { batch } = parseArgv(words, context.prog);
  const [alone] = batch;
  if (alone?.implicit && alone.words[0] !== undefined)
    throw unknownCommand(alone.words[0], context.prog, (name) => ["timer", name]);
  await checkBatch(batch, context);
}
