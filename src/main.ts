import { closesOnExec } from "./process/c-library.ts";
// A macro: the build writes the text here.
import { programVersion } from "./cli/version.ts" with { type: "macro" };

/** An internal error (sysexits.h; lib/errors.ts is not needed for all else here). */
const EX_SOFTWARE = 70;

const version = programVersion();
const words = process.argv.slice(2);

try {
  const alone = words.length === 1 && (words[0] === "--version" || words[0] === "-v");
  if (!alone || !(await printVersion())) {
    const { startProgram } = await import("./cli/start.ts");
    process.exitCode = await startProgram(version, words);
  }
} catch (error) {
  const { reportFailure } = await import("./cli/start.ts");
  process.exitCode = await reportFailure(error);
}
// A mistake in the program may leave children or timers, which would keep this process for ever.
if (process.exitCode === EX_SOFTWARE) process.exit();

/**
 * Prints the version without node:fs and Bun.file, which take a sixth of Bun's own start.
 * @returns false if it cannot be written: the rest of the program reports why
 */
async function printVersion(): Promise<boolean> {
  try {
    // stdout was closed (process/stdout.ts).
    if (closesOnExec(1)) return false;
    await Bun.write(Bun.stdout, `vm ${version}\n`);
    return true;
  } catch {
    return false;
  }
}
