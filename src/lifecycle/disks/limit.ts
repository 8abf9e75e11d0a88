import { formatDiskLimit, type DiskLimit } from "../../config/machine-values.ts";
import { VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { throttleDisks } from "../../live/throttle.ts";
import { isExitUnrecorded, readMark, updateRun } from "../../store/mark.ts";
import type { Workdir } from "../../store/workdir.ts";
import { QmpError } from "../../qmp/errors.ts";
import type { Context } from "../../vm/context.ts";
import { formatDiskLimits } from "../../vm/disks.ts";
import { storeSettings, type SettingChanges } from "../../vm/store-settings.ts";
import { findStored, listStoredDisks, withMachine } from "./open.ts";
import type { LimitRequest } from "./request.ts";

const COMMAND = "limit the disk";

/**
 * Limits a disk, in the running machine at once, and from then on.
 * @throws 66 for an unknown disk, 74 if qemu refuses
 */
export async function limitDisk(context: Context, name: string, asked: LimitRequest): Promise<void> {
  await withMachine(context, COMMAND, async (changing) => {
    const { vm, work, qmp } = changing;
    const { number } = findStored(changing, await listStoredDisks(context, vm, work), name, COMMAND);
    const before = vm.settings.DISK_LIMITS.find((limit) => limit.number === number);
    const { iops = 0, bytesPerSecond = 0 } = { ...before, ...asked };
    const limit = { number, ...(iops > 0 && { iops }), ...(bytesPerSecond > 0 && { bytesPerSecond }) };
    const isLimited = iops > 0 || bytesPerSecond > 0;
    const missing = qmp ? await throttleDisks(qmp, [limit]).catch(refusedByQemu) : [];
    const changes = replaceLimit(vm.settings.DISK_LIMITS, number, isLimited ? limit : undefined);
    storeSettings(vm, COMMAND, changes);
    if (qmp) recordLimits(work, changes);
    log.success(
      `disk ${number}: ${isLimited ? formatDiskLimits(limit) : "no limit"}${missing.length > 0 ? ", from the next run" : ""}`,
    );
  });
}

/** The setting with a disk's limit replaced. @param limit undefined: none */
export function replaceLimit(
  all: readonly DiskLimit[],
  number: number,
  limit: DiskLimit | undefined,
): SettingChanges {
  const limits = [...all.filter((one) => one.number !== number), ...(limit ? [limit] : [])];
  return { DISK_LIMITS: limits.length > 0 ? limits.map(formatDiskLimit) : undefined };
}

/** Records the limits of the running machine, for `status`. */
export function recordLimits({ dir }: Workdir, { DISK_LIMITS = [] }: SettingChanges): void {
  const mark = readMark(dir);
  if (mark?.run?.settings && isExitUnrecorded(mark))
    updateRun(dir, { settings: { ...mark.run.settings, DISK_LIMITS } });
}

function refusedByQemu(error: unknown): never {
  if (!(error instanceof QmpError)) throw error;
  throw new VmError("io", `cannot ${COMMAND}: ${error.reply.desc}`, { cause: error });
}
