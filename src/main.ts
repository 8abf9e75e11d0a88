import { version } from "../package.json";
import { writeResult } from "./process/stdout.ts";
import { takeUmask } from "./process/umask.ts";

const words = process.argv.slice(2);

try {
  // The answer to `--version` needs none of the program.
  if (words.length === 1 && (words[0] === "--version" || words[0] === "-v")) {
    writeResult(`vm ${version}\n`);
  } else {
    takeUmask();
    const { buildContext, progName } = await import("./cli/surroundings.ts");
    const prog = progName(process.argv0);
    if (words[0] === "__complete") {
      // A shell asks, by the script of `completion`.
      const { answerShell } = await import("./cli/complete/answer.ts");
      const context = buildContext(prog, version, { settings: {}, additions: {}, hostdir: undefined });
      writeResult(await answerShell(context, words.slice(1)));
    } else {
      const { runCli } = await import("./cli/cli.ts");
      process.exitCode = await runCli(prog, version, words);
    }
  }
} catch (error) {
  const { reportError } = await import("./cli/report.ts");
  process.exitCode = reportError(error, false);
}
