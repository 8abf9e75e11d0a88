import { aboutVm, commandLine, commandLineFor } from "../lib/command-line.ts";
import { SignalError, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import type { Context } from "../vm/context.ts";
import { jobVm } from "./job.ts";

export const RENEWING_JOB = "new-identity";

/**
 * Gives the guests of clones a host name, a machine-id and SSH host keys of their own, by a job in each.
 * @throws the status of the first that failed; the others are done nevertheless
 */
export async function renewGuests(
  context: Context,
  clones: readonly { directory: string; hostName: string }[],
): Promise<void> {
  let failed: VmError | undefined;
  for (const { directory, hostName } of clones) {
    const own: Context = {
      ...context,
      hostdir: directory,
      options: { ...context.options, hostdir: directory },
    };
    try {
      using _hints = aboutVm(directory);
      await jobVm(own, RENEWING_JOB, { HOSTNAME: `${hostName}\n` });
    } catch (error) {
      if (!(error instanceof VmError) || error instanceof SignalError) throw error;
      log.warn(`${directory}: ${error.message}`);
      failed ??= new VmError(
        error.code,
        `the clone ${directory} was made, but its guest still has the identity of the original: ${error.message}`,
        {
          cause: error,
          hint: `renew it later: ${commandLineFor(directory, "job", RENEWING_JOB)}; for a guest other than Linux leave it: ${commandLine("clone", "--keep-guest", "DIR")}`,
        },
      );
    }
  }
  if (failed) throw failed;
}
