import { watchActivity } from "../lib/activity.ts";
import { setCommandLine } from "../lib/command-line.ts";
import { PLAIN, log, setQuiet, setupLog } from "../lib/log.ts";
import { EXIT, SignalError, VmError } from "../lib/errors.ts";
import { installSignalHandlers, throwIfInterrupted } from "../process/signals.ts";
import { openVm, withHostdir } from "../vm/find.ts";
import type { ContextChange } from "../commands/define.ts";
import type { Context } from "../vm/context.ts";
import { parseArgv, type Intent } from "./argv.ts";
import { isOldName } from "./invocation.ts";
import { cittyContext, parseRequests, type Request } from "./check.ts";
import { themeOf, wantsColours } from "./colours.ts";
import { reportError } from "./report.ts";
import { buildContext } from "./context.ts";
import { showsSeveral } from "./selecting.ts";
import { NO_OPTIONS } from "./surroundings.ts";
import { STDERR } from "../lib/standard-streams.ts";
import { isTerminal } from "../process/terminal.ts";

/**
 * Runs one command line from words to exit status; reports errors itself.
 * @param words behind the program's name
 */
export async function runCli(prog: string, version: string, words: readonly string[]): Promise<number> {
  setupLog(prog, PLAIN);
  installSignalHandlers();
  let debug = words.includes("--debug");
  try {
    const intent = await understand(words, prog, version);
    debug = intent.debug;
    setCommandLine(prog, intent.options.hostdir);
    return await execute(intent, withHostdir(buildContext(prog, version, intent.options)));
  } catch (error) {
    return reportError(error, debug);
  }
}

/**
 * Reports an error that no command line caught.
 * @returns the exit status
 */
export const reportUncaught = (error: unknown): number => reportError(error, false);

/** Runs `__tap BRIDGE`, by which this program is started in a network's namespace. */
export async function runTap(bridge = ""): Promise<number> {
  const { sendTap } = await import("../network/tap.ts");
  await sendTap(bridge);
  return 0;
}

/** Runs `__keep DIRECTORY HOSTDIR PID`, which serves the disks of a running VM for the process that has started it. */
export async function runKeeper([
  directory = "",
  hostdir = "",
  pid = "",
]: readonly string[]): Promise<number> {
  installSignalHandlers();
  const { keepRepository } = await import("../snapshot/remote/keeper.ts");
  await keepRepository(directory, hostdir, pid);
  return 0;
}

/** Parses the line; if it is refused, the error uses facts of the filesystem. */
async function understand(words: readonly string[], prog: string, version: string): Promise<Intent> {
  try {
    return parseArgv(words, prog);
  } catch (error) {
    const { explainLine } = await import("./refused-word.ts");
    throw explainLine(error, words, buildContext(prog, version, NO_OPTIONS));
  }
}

async function execute(intent: Intent, context: Context): Promise<number> {
  const { prog, version } = context;
  const answer = (text: string): number => {
    context.print(text);
    return EXIT.ok;
  };
  if (intent.version) return answer(`${prog} ${version}\n`);
  if (intent.licenses) {
    // A hundred kilobytes that nothing else needs.
    const { buildLicenses } = await import("./licenses.ts");
    return answer(buildLicenses(prog, version));
  }
  if (intent.help) return answer(await usageInForce(context));
  const helped = intent.batch.find((invocation) => invocation.help);
  if (helped) {
    const { buildCommandUsage } = await import("./usage.ts");
    return answer(buildCommandUsage(prog, helped.command));
  }
  await setColours(intent, context);
  const requests = await parseRequests(intent.batch, context);
  const { labels } = context.options;
  if (labels === undefined || showsSeveral(intent.batch[0]!.command.name)) {
    await runRequests(requests, context);
    return EXIT.ok;
  }
  const { runForEach } = await import("./each-vm.ts");
  return runForEach(context, labels, intent.debug, async (own) =>
    runRequests(await parseRequests(intent.batch, own), own),
  );
}

async function runRequests(requests: readonly Request[], context: Context): Promise<void> {
  let { options } = context;
  for (const item of requests) {
    throwIfInterrupted();
    const announced = requests.length > 1 || isOldName(item.invocation.command.name);
    const changed = await runRequest(item, { ...context, options }, announced);
    options = changed?.options ?? options;
  }
}

/**
 * @param announced [compat] each command of a batch, and the six old ones; the others speak for themselves
 * @returns what is different for the next command
 */
async function runRequest(
  { invocation, definition, request }: Request,
  context: Context,
  announced: boolean,
): Promise<ContextChange | undefined> {
  const { command, words, args } = invocation;
  setQuiet(args.quiet === true);
  using _activity = watchActivity();
  if (announced) log.announce(command.name, words);
  try {
    return await definition.run?.(cittyContext(definition, invocation, { context, request }));
  } catch (error) {
    if (command.name !== "run") throw error;
    const { explainWord } = await import("./refused-word.ts");
    throw explainWord(error, invocation, context);
  } finally {
    setQuiet(false);
  }
}

/** Colours come from the settings, so they wait for them; errors in those are reported by the command. */
async function setColours(intent: Intent, context: Context): Promise<void> {
  if (!wantsColours(intent.noColors, context.env, isTerminal(STDERR))) return;
  try {
    const { settings } = await openVm(context, false);
    setupLog(context.prog, themeOf(settings, true));
  } catch (error) {
    if (error instanceof SignalError) throw error;
  }
}

/** The help with the values in force; where the settings cannot be read, with a word about that. */
async function usageInForce(context: Context): Promise<string> {
  const { buildUsage } = await import("./usage.ts");
  try {
    const { raw, hostdir } = await openVm(context, false);
    return buildUsage(context.prog, context.version, { ...raw, hostdir });
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    const usage = buildUsage(context.prog, context.version, { hostdir: context.cwd });
    return `${usage}\nThe values in force are not shown: ${error.message}\n`;
  }
}
