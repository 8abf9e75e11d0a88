import { version } from "../package.json";
import { writeResult } from "./process/stdout.ts";

const words = process.argv.slice(2);

try {
  // `--version` needs no other module.
  if (words.length === 1 && (words[0] === "--version" || words[0] === "-v")) writeResult(`vm ${version}\n`);
  else {
    const { startProgram } = await import("./cli/start.ts");
    process.exitCode = await startProgram(version, words);
  }
} catch (error) {
  const { reportError } = await import("./cli/report.ts");
  process.exitCode = reportError(error, false);
}
