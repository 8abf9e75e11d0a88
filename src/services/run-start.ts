import type { Machine } from "../machine/types.ts";
import { updateMark } from "../store/mark.ts";
import { noteRunning } from "../store/running.ts";
import type { Present } from "../store/workdir.ts";
import type { Context } from "./context.ts";
import type { Vm } from "./open.ts";

/** Writes down what cannot be asked of a running qemu. */
export function noteStart(
  context: Context,
  vm: Vm,
  work: Present,
  { network, display }: Machine,
  pid: number,
  { ssh = false, detach = false }: { ssh?: boolean | undefined; detach?: boolean | undefined },
): void {
  const { settings, additions } = context.options;
  updateMark(work.dir, {
    run: {
      started: new Date().toISOString(),
      detached: detach,
      pid,
      forwards: network?.forwards ?? [],
      display: "at" in display ? { protocol: display.kind, ...display.at } : undefined,
      typed: { settings, additions, ssh },
    },
  });
  noteRunning(context.cacheDirectory, vm.hostdir);
}
