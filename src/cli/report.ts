import { EXIT, StatusError, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { fileError } from "../store/files.ts";

/**
 * Tells the user what went wrong.
 * @returns the exit status
 */
export function reportError(error: unknown, debug: boolean): number {
  if (error instanceof StatusError && !debug) return error.exitCode;
  if (error instanceof VmError) {
    log.error(error.message);
    if (error.hint) log.info(error.hint.replaceAll(/^/gm, "  "));
    if (debug) log.info(stackOf(error));
    return error.exitCode;
  }
  // What the system refuses is no mistake of the program's.
  if (error instanceof Error && "errno" in error)
    return reportError(fileError("the system refuses access to a file", error), debug);
  log.error(`internal error: ${error instanceof Error ? error.message : String(error)}`);
  log.info(debug ? stackOf(error) : "  this is a mistake in the program; --debug shows where");
  return EXIT.internal;
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? "" : `\ncaused by ${stackOf(error.cause)}`;
  return `${error.stack ?? error.message}${cause}`;
}
