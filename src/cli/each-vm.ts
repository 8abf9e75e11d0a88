import { EXIT, SignalError, VmError } from "../lib/errors.ts";
import { programLine } from "../lib/command-line.ts";
import { log } from "../lib/log.ts";
import { counted, plain } from "../lib/text.ts";
import { aboutOneVm } from "../lib/vm-scope.ts";
import { interruption, throwIfInterrupted } from "../process/signals.ts";
import { findLabelled, type Labelled } from "../vm/all.ts";
import type { Context } from "../vm/context.ts";
import { reportError } from "./report.ts";
import { hintFor } from "./suggest.ts";

/**
 * Runs a line for each VM that has one of these labels, one VM after another. An error of one does not stop the
 * others.
 * @returns the highest of their exit statuses, and of the errors of VMs whose labels cannot be read
 * @throws 66 if no VM has the label, and after a stop signal
 */
export async function runForEach(
  context: Context,
  labels: readonly string[],
  debug: boolean,
  runLine: (own: Context) => Promise<void>,
): Promise<number> {
  const { found, unknown } = await findLabelled(context, labels);
  let worst: number = EXIT.ok;
  for (const { name, hostdir, error } of unknown) {
    log.warn(
      `${plain(name)} (${plain(hostdir)}) is left out, as its labels cannot be read: ${error.message}`,
    );
    worst = Math.max(worst, error.exitCode);
  }
  if (found.length === 0) {
    const none = noneHas(labels, context.prog);
    if (unknown.length === 0) throw none;
    return Math.max(worst, reportError(none, debug));
  }
  const failed: string[] = [];
  for (const [index, { name, hostdir }] of found.entries()) {
    if (index > 0 && interruption.aborted) reportUndone(found.slice(index));
    throwIfInterrupted();
    log.info(`${plain(name)} (${plain(hostdir)}):`);
    const { labels: _, ...options } = context.options;
    const own: Context = { ...context, hostdir, options: { ...options, hostdir } };
    try {
      await aboutOneVm(hostdir, () => runLine(own));
    } catch (error) {
      if (error instanceof SignalError) {
        reportUndone(found.slice(index));
        throw error;
      }
      worst = Math.max(worst, reportError(error, debug));
      failed.push(plain(name));
    }
  }
  if (failed.length > 0)
    log.error(`failed for ${failed.length} of ${counted(found.length, "VM")}: ${failed.join(", ")}`);
  return worst;
}

/** After a stop signal. */
const reportUndone = (rest: readonly Labelled[]): void =>
  log.warn(`interrupted; not done for ${rest.map(({ name }) => plain(name)).join(", ")}`);

/** Of a mistyped command, too: `stop @bakcup`. */
const noneHas = (labels: readonly string[], prog: string): VmError =>
  new VmError("noInput", `no VM has the label ${labels.map((label) => `'${label}'`).join(" or ")}`, {
    hint: [
      `show the VMs and their labels: ${programLine("list")}`,
      hintFor(labels[0]!, prog, (name) => [`@${name}`]),
    ].join("\n"),
  });
