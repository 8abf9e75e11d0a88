import { join } from "node:path";
import { toJson } from "../../lib/json.ts";
import { formatSize } from "../../lib/size.ts";
import { formatTable } from "../../lib/table.ts";
import { listAttached, type AttachedDisk } from "../../live/attached.ts";
import { isListening } from "../../process/unix-socket.ts";
import { QmpClient } from "../../qmp/client.ts";
import { WORK } from "../../store/layout.ts";
import type { Workdir } from "../../store/workdir.ts";
import type { Context } from "../../vm/context.ts";
import { formatDiskLimits, listMachineDisks, type MachineDisk } from "../../vm/disks.ts";
import { openVm, requireWork } from "../../vm/find.ts";
import { formatWhen } from "../../vm/status-text.ts";
import { listStoredDisks, refuseTypedImages } from "./open.ts";

const HEAD = ["DISK", "BUS", "FORMAT", "SIZE", "ON HOST", "WHEN", "IMAGE"];

/** Prints the VM's disks: as JSON in boot order, as a table by their numbers. @throws 66 without a VM */
export async function listDisks(context: Context, json: boolean): Promise<void> {
  refuseTypedImages(context, "list the disks");
  const vm = await openVm(context);
  const work = requireWork(vm, "list the disks");
  const attached = await findRunningDisks(work);
  const disks = listMachineDisks(vm, await listStoredDisks(context, vm, work), attached);
  if (json) return context.print(toJson(disks));
  const sorted = disks.toSorted((a, b) => a.number - b.number);
  const limits = sorted.map(formatDiskLimits);
  // Only where there are some.
  const withLimits = (cells: string[], text: string): string[] =>
    limits.every((one) => one === "") ? cells : cells.toSpliced(-1, 0, text);
  const rows = sorted.map((disk, index) => withLimits(formatRow(disk), limits[index]!));
  context.print(rows.length === 0 ? "" : formatTable([withLimits(HEAD, "LIMITS"), ...rows]));
}

const formatRow = ({ number, image, bus, format, attached, stored, ...sizes }: MachineDisk): string[] => [
  String(number),
  bus ?? "",
  format ?? "",
  sizes.virtualBytes === null ? "" : formatSize(sizes.virtualBytes),
  sizes.actualBytes === null ? "" : formatSize(sizes.actualBytes),
  formatWhen(attached, stored),
  image,
];

/** Disks of the running machine; undefined if the VM is off. */
async function findRunningDisks(work: Workdir): Promise<AttachedDisk[] | undefined> {
  const socket = join(work.dir, WORK.qmp);
  if (!(await isListening(socket)) || (await isListening(join(work.dir, WORK.control)))) return undefined;
  const qmp = await QmpClient.connect(socket, CONNECT_MS);
  try {
    return await listAttached(qmp);
  } finally {
    qmp.close();
  }
}

/** Other commands use the monitor for moments only. */
const CONNECT_MS = 10_000;
