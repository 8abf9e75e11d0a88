import { writeResult } from "../process/stdout.ts";
import { takeUmask } from "../process/umask.ts";
import { buildContext, NO_OPTIONS, progName } from "./surroundings.ts";

/**
 * Does what the command line says.
 * @param words behind the program's name
 * @returns the exit status
 */
export async function startProgram(version: string, words: readonly string[]): Promise<number> {
  takeUmask();
  const prog = progName(process.argv0);
  if (words[0] === "__tap") {
    await (await import("../network/tap.ts")).sendTap(words[1] ?? "");
    return 0;
  }
  if (words[0] !== "__complete") {
    const { runCli } = await import("./cli.ts");
    return runCli(prog, version, words);
  }
  // A shell asks, by the script of `completion`.
  const { answerShell } = await import("./complete/answer.ts");
  writeResult(await answerShell(buildContext(prog, version, NO_OPTIONS), words.slice(1)));
  return 0;
}
