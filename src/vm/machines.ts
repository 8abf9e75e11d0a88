import type { Nic } from "../machine/types.ts";
import { requireVm } from "../store/no-vm.ts";
import type { Context } from "./context.ts";
import { findHostdir, openVm } from "./find.ts";
import { findAlive } from "./status.ts";
import { effectiveForwards, nicsOf } from "./nics.ts";
import { optionsOfRun } from "./running-settings.ts";

/** The network of a machine. */
export interface Network {
  nics: Nic[];
  /** Options of `-netdev user`. */
  forwards: string[];
}

/**
 * The network of the running machine, as recorded, and of the next run. Takes no lock and changes nothing.
 * @param context without settings of the command line
 */
export async function readMachines(
  context: Context,
): Promise<{ running: Network | undefined; next: Network }> {
  requireVm(findHostdir(context));
  const vm = await openVm(context, false);
  const next = { nics: nicsOf(vm.settings), forwards: effectiveForwards(vm.settings) };
  const alive = vm.work.state === "present" ? await findAlive(vm.work) : undefined;
  const run = vm.work.state === "present" ? vm.work.mark.run : undefined;
  if (!alive || alive.job || !run || run.ended !== undefined) return { running: undefined, next };
  const { hostdir } = context.options;
  const now = await openVm({ ...context, options: { ...optionsOfRun(run), hostdir } }, false);
  return { running: { nics: nicsOf(now.settings), forwards: run.forwards }, next };
}
