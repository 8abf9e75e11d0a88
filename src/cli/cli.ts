import type { CommandContext } from "citty";
import { PLAIN, log, setQuiet, setupLog } from "../lib/log.ts";
import { SignalError, VmError } from "../lib/errors.ts";
import { installSignalHandlers, throwIfInterrupted } from "../process/signals.ts";
import { openVm } from "../services/open.ts";
import type { Context } from "../services/context.ts";
import { parseArgv, type Intent } from "./argv.ts";
import { isOldName, type Invocation } from "./batch.ts";
import { themeOf, wantsColours } from "./colours.ts";
import { nearest } from "../lib/nearest.ts";
import { COMMANDS } from "./registry.ts";
import { reportError } from "./report.ts";
import { buildContext } from "./surroundings.ts";
import { buildCommandUsage, buildUsage } from "./usage.ts";

/**
 * Runs one command line from words to exit status; reports errors itself.
 * @param words behind the program's name
 */
export async function runCli(prog: string, version: string, words: readonly string[]): Promise<number> {
  setupLog(prog, PLAIN);
  installSignalHandlers();
  let debug = words.includes("--debug");
  try {
    const intent = parseArgv(words, prog);
    debug = intent.debug;
    await execute(intent, buildContext(prog, version, intent.options));
    return 0;
  } catch (error) {
    return reportError(error, debug);
  }
}

async function execute(intent: Intent, context: Context): Promise<void> {
  const { prog, version } = context;
  if (intent.version) return context.print(`${prog} ${version}\n`);
  if (intent.licenses) {
    // A hundred kilobytes that nothing else needs.
    const { buildLicenses } = await import("./licenses.ts");
    return context.print(buildLicenses(prog, version));
  }
  if (intent.help) return context.print(await usageInForce(context));
  const helped = intent.batch.find((invocation) => invocation.help);
  if (helped) return context.print(buildCommandUsage(prog, helped.command));
  await setColours(intent, context);
  // What can be told of the words alone is told before the first command runs.
  for (const invocation of intent.batch)
    await invocation.command.definition.setup?.(citty(invocation, context));
  for (const invocation of intent.batch) {
    throwIfInterrupted();
    const announced = intent.batch.length > 1 || isOldName(invocation.command.name);
    await runInvocation(invocation, context, announced);
  }
}

/** What citty would hand to a command; its own parser is too lenient to be asked. */
const citty = ({ command, args, rest }: Invocation, data: Context): CommandContext<any> => ({
  rawArgs: [],
  args: { ...args, _: rest } as unknown as CommandContext<any>["args"],
  cmd: command.definition,
  data,
});

/** @param announced [compat] each command of a batch, and the six old ones; the others speak for themselves */
async function runInvocation(invocation: Invocation, context: Context, announced: boolean): Promise<void> {
  const { command, words, implicit, args } = invocation;
  setQuiet(args.quiet === true);
  if (announced) log.announce(command.name, words);
  try {
    await command.definition.run?.(citty(invocation, context));
  } catch (error) {
    throw implicit && words[0] !== undefined ? explainLoneWord(error, words[0], context.prog) : error;
  } finally {
    setQuiet(false);
  }
}

/** A lone word that is no command is taken as a CD image; where there is none it may be a mistyped command. */
function explainLoneWord(error: unknown, word: string, prog: string): unknown {
  if (!(error instanceof VmError) || !error.message.startsWith("no such CD image")) return error;
  const suggestion = nearest(word, [...COMMANDS.keys()]);
  return new VmError("noInput", `'${word}' is neither a command nor a CD image that exists`, {
    hint: suggestion
      ? `did you mean '${prog} ${suggestion}'? all commands: ${prog} -h`
      : `all commands: ${prog} -h`,
  });
}

/** Colours come from the settings, so they wait for them; errors in those are reported by the command. */
async function setColours(intent: Intent, context: Context): Promise<void> {
  if (!wantsColours(intent.noColors, context.env, process.stderr.isTTY)) return;
  try {
    const { settings } = await openVm(context, false);
    setupLog(context.prog, themeOf(settings, true));
  } catch (error) {
    if (error instanceof SignalError) throw error;
  }
}

/** The help with the values in force; where the settings cannot be read, with a word about that. */
async function usageInForce(context: Context): Promise<string> {
  try {
    const { raw, hostdir } = await openVm(context, false);
    return buildUsage(context.prog, context.version, { ...raw, hostdir });
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    const usage = buildUsage(context.prog, context.version, { hostdir: context.cwd });
    return `${usage}\nThe values in force are not shown: ${error.message}\n`;
  }
}
