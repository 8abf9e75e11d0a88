import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { exec, findProgram } from "../process/exec.ts";
import { removeQuietly, writeNew } from "../store/files.ts";
import type { Context } from "../vm/context.ts";
import { STDOUT } from "../lib/standard-streams.ts";
import { isTerminal } from "../process/terminal.ts";

/** Programs that show a page from a file, with a pager: man-db's and mandoc's. */
const VIEWERS = [
  ["man", "-l"],
  ["mandoc", "-a"],
] as const;

/** Shows the manual page on a terminal, where there is a man(1); prints its source elsewhere. */
export async function showManual(context: Context): Promise<void> {
  const page = await context.manual();
  const viewer = VIEWERS.find(([program]) => findProgram(program));
  if (!isTerminal(STDOUT) || !viewer || !(await runViewer(context, viewer, page))) context.print(page);
}

/** @returns false where the viewer could not */
async function runViewer(context: Context, viewer: readonly string[], page: string): Promise<boolean> {
  let scratch: string | undefined;
  try {
    scratch = mkdtempSync(join(context.tmpdir, "vm-man-"));
    const file = join(scratch, `${context.prog}.1`);
    writeNew(file, page);
    const { status } = await exec([...viewer, file], {
      stdin: 0,
      stdout: 1,
      stderr: 2,
      anyStatus: true,
      // The terminal is the pager's now, and so is Ctrl-C.
      ownSession: false,
      keepOnInterrupt: true,
      runAs: "user",
    });
    return status === 0;
  } catch (error) {
    // No place for a file is no reason to show nothing.
    if (error instanceof VmError) throw error;
    return false;
  } finally {
    if (scratch !== undefined) removeQuietly(scratch);
  }
}
