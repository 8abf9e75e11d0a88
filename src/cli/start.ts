import { writeResult } from "../process/stdout.ts";
import { takeUmask } from "../process/umask.ts";
import { collectFacts, NO_OPTIONS, progName } from "./surroundings.ts";

/**
 * Does what the command line says.
 * @param words behind the program's name
 * @returns the exit status
 */
export async function startProgram(version: string, words: readonly string[]): Promise<number> {
  takeUmask();
  const prog = progName(process.argv0);
  if (words[0] !== "__complete") {
    const { runCli, runTap, runKeeper } = await import("./cli.ts");
    if (words[0] === "__tap") return runTap(words[1]);
    return words[0] === "__keep" ? runKeeper(words.slice(1)) : runCli(prog, version, words);
  }
  // A shell asks, by the script of `completion`.
  const { answerShell } = await import("./complete/answer.ts");
  writeResult(await answerShell(collectFacts(prog, version, NO_OPTIONS), words.slice(1)));
  return 0;
}

/** Reports an error that no command line caught, by what most command lines load. */
export async function reportFailure(error: unknown): Promise<number> {
  const { reportUncaught } = await import("./cli.ts");
  return reportUncaught(error);
}
