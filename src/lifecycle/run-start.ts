import { pickMachineSettings } from "../config/schema.ts";
import type { Machine } from "../machine/types.ts";
import { updateMark } from "../store/mark.ts";
import { noteRunning } from "../store/running.ts";
import type { JailRecord } from "../store/mark-types.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";

/**
 * Records facts that a running qemu cannot report. Called before it is started: if this program is killed then, the
 * record says that a guest runs.
 */
export function recordStart(
  context: Context,
  vm: Vm,
  work: Workdir,
  { nics, disks, display, tpm, cdrom }: Machine,
  jail: JailRecord,
  { ssh = false, detach = false }: { ssh?: boolean | undefined; detach?: boolean | undefined },
): void {
  const { settings, additions } = context.options;
  updateMark(work.dir, {
    lastRun: "unknown",
    onlyJobs: undefined,
    interruptedJob: undefined,
    ...(tpm && { tpm: true }),
    run: {
      started: new Date().toISOString(),
      detached: detach,
      settings: pickMachineSettings(vm.raw),
      cd: cdrom && { first: cdrom.first },
      forwards: nics.flatMap((nic) => nic.forwards),
      diskAios: Object.fromEntries(disks.map(({ number, aio }) => [number, aio ?? ("threads" as const)])),
      jail,
      display: "at" in display ? { protocol: display.kind, ...display.at } : undefined,
      typed: { settings, additions, ssh },
    },
  });
  noteRunning(context.cacheDirectory, vm.hostdir);
}

/** Restores the previous record: no guest has run. */
export const withdrawStart = ({ dir, mark }: Workdir): void => {
  const { lastRun, onlyJobs, interruptedJob, run, tpm } = mark;
  updateMark(dir, { lastRun, onlyJobs, interruptedJob, run, tpm });
};
