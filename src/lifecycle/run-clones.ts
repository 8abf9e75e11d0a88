import { availableParallelism } from "node:os";
import { reasonOf, SignalError, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { forEachItem } from "../lib/pool.ts";
import { aboutOneVm } from "../lib/vm-scope.ts";
import type { Context } from "../vm/context.ts";
import { runVm } from "./run.ts";

/** A machine that is started waits, too: for qemu, which reads its files. */
const PER_PROCESSOR = 2;

/**
 * Runs clones in the background, several at a time.
 * @throws the error of the first that cannot be run; the others are run nevertheless
 */
export async function runClones(context: Context, clones: readonly { directory: string }[]): Promise<void> {
  const failures: { directory: string; error: unknown }[] = [];
  await forEachItem(clones, PER_PROCESSOR * availableParallelism(), async ({ directory }) => {
    await runClone(context, directory).catch((error: unknown) => {
      if (error instanceof SignalError) throw error;
      failures.push({ directory, error });
    });
  });
  const [first, ...others] = failures;
  if (!first) return;
  for (const { directory, error } of others)
    log.warn(`cannot run the clone ${directory}: ${reasonOf(error)}`);
  const { directory, error } = first;
  if (!(error instanceof VmError)) throw error;
  throw new VmError(error.code, `the clone ${directory} was made, but cannot be run: ${error.message}`, {
    cause: error,
    hint: error.hint,
  });
}

const runClone = (context: Context, hostdir: string): Promise<void> =>
  aboutOneVm(hostdir, () =>
    runVm({ ...context, hostdir, options: { settings: {}, additions: {}, hostdir } }, { detach: true }),
  );
