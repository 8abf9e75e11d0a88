import { join } from "node:path";
import { toJson } from "../../lib/json.ts";
import { lstatOf } from "../../lib/read-file.ts";
import { formatSize } from "../../lib/size.ts";
import { formatTable } from "../../lib/table.ts";
import { findAttached, listAttached, type AttachedDisk } from "../../live/attached.ts";
import type { DiskBus, ImageFormat } from "../../machine/types.ts";
import { isListening } from "../../process/unix-socket.ts";
import { readVirtualBytes } from "../../qemu/image-header.ts";
import { QmpClient } from "../../qmp/client.ts";
import { allocatedBytes } from "../../store/files.ts";
import { WORK } from "../../store/layout.ts";
import type { Workdir } from "../../store/workdir.ts";
import type { Context } from "../../vm/context.ts";
import { openVm, requireWork } from "../../vm/find.ts";
import { listStoredDisks, refuseTypedImages } from "./open.ts";

/** A disk, as printed by `disk list --json`. */
interface ListedDisk {
  /** Decides its place; null for one that only has its name in the settings. */
  number: number;
  /** As in IMAGES; of one that is attached for this run only, its path. */
  image: string;
  bus: DiskBus | null;
  format: ImageFormat | null;
  virtualBytes: number | null;
  /** Allocated on the host; null for a block device or a missing file. */
  actualBytes: number | null;
  /** The running guest has it; null if the VM is off. */
  attached: boolean | null;
  /** In the VM's settings: the next run has it. */
  stored: boolean;
}

/** Prints the VM's disks, in boot order. @throws 66 without a VM */
export async function listDisks(context: Context, json: boolean): Promise<void> {
  refuseTypedImages(context, "list the disks");
  const vm = await openVm(context);
  const work = requireWork(vm, "list the disks");
  const attached = await findRunningDisks(work);
  const stored = await listStoredDisks(context, vm, work);
  const disks = stored.map(({ request, number, path }): ListedDisk => {
    const running = attached && path !== undefined ? findAttached(attached, path) : undefined;
    return {
      number: running ? numberOf(running) : number,
      image: request.path,
      bus: request.bus,
      format: request.format ?? null,
      virtualBytes: running?.virtualBytes ?? (path === undefined ? null : (readVirtualBytes(path) ?? null)),
      actualBytes: path === undefined ? null : bytesOnHost(path),
      attached: attached ? running?.plugged === true : null,
      stored: true,
    };
  });
  const temporary = (attached ?? [])
    .filter((disk) => !stored.some(({ path }) => path !== undefined && findAttached([disk], path)))
    .map((disk): ListedDisk => ({
      number: numberOf(disk),
      image: disk.path,
      bus: null,
      format: disk.driver as ImageFormat,
      virtualBytes: disk.virtualBytes,
      actualBytes: bytesOnHost(disk.path),
      attached: disk.plugged,
      stored: false,
    }));
  const all = [...disks, ...temporary];
  context.print(json ? toJson(all) : formatTable(all.map(describe)));
}

const numberOf = ({ node }: AttachedDisk): number => Number(node.slice("disk".length));

const bytesOnHost = (path: string): number | null => {
  const stats = lstatOf(path);
  return stats?.isFile() ? allocatedBytes(stats) : null;
};

function describe({
  number,
  image,
  bus,
  virtualBytes,
  actualBytes: held,
  attached,
  stored,
}: ListedDisk): string[] {
  const now = attached === false ? "from the next run" : stored ? "" : "until the end of this run";
  return [
    String(number),
    image,
    bus ?? "",
    virtualBytes === null ? "" : formatSize(virtualBytes),
    held === null ? "" : `${formatSize(held)} on the host`,
    now,
  ];
}

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
