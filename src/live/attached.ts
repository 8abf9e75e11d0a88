import type { DiskBus } from "../machine/types.ts";
import { busOfDevice, CD_DEVICE, CD_NODES, deviceOf } from "../qemu/devices/disk.ts";
import { listBlockNodes, type BlockNode } from "../qmp/block.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { ReplyOf } from "../qmp/commands.ts";

/** A disk that a running qemu has open. */
export interface AttachedDisk extends BlockNode {
  /** Its image, as given to qemu. */
  path: string;
  /** False: no device uses it; the guest has released it, or it is only being plugged in. */
  plugged: boolean;
  /** Undefined: not known. */
  bus: DiskBus | undefined;
}

/** Devices of the running machine that have an id, with their drivers. */
async function readDevices(qmp: QmpClient): Promise<Map<string, string>> {
  const found = await qmp.execute("qom-list", { path: "/machine/peripheral" });
  return new Map(
    found.flatMap(({ name, type }) => {
      const driver = /^child<(.*)>$/.exec(type)?.[1];
      return driver === undefined ? [] : [[name, driver]];
    }),
  );
}

/** Devices of the running machine that have an id. */
export const listDevices = async (qmp: QmpClient): Promise<Set<string>> =>
  new Set((await readDevices(qmp)).keys());

/** The disks of the running machine, by the names of their nodes and devices. */
export async function listAttached(qmp: QmpClient): Promise<AttachedDisk[]> {
  const [nodes, devices] = await Promise.all([listBlockNodes(qmp), readDevices(qmp)]);
  return nodes.flatMap((node) => {
    const file = nodes.find((item) => item.node === `${node.node}-file`);
    return file === undefined || !/^disk\d+$/.test(node.node)
      ? []
      : [
          {
            ...node,
            path: file.file,
            plugged: devices.has(deviceOf(node.node)),
            bus: busOfDevice(node.node, devices),
          },
        ];
  });
}

/** A CD drive of a running machine (qapi/block-core.json, BlockInfo). */
export type CdDrive = ReplyOf<"query-block">[number];

/** The drive of the running machine whose CD can be changed. */
export async function findCdDrive(qmp: QmpClient): Promise<CdDrive | undefined> {
  const drives = await qmp.execute("query-block");
  return drives.find(({ qdev = "", removable }) => removable && qdev.split("/").at(-1) === CD_DEVICE);
}

/** The image of the CD in the running machine; undefined if it has none. */
export async function findInsertedCd(qmp: QmpClient): Promise<string | undefined> {
  const [drive, nodes] = await Promise.all([findCdDrive(qmp), listBlockNodes(qmp)]);
  // Where there is no CD drive, a CD is a read-only disk.
  const inserted = drive ? drive.inserted?.["node-name"] : CD_NODES[0];
  return nodes.find(({ node }) => node === inserted)?.file;
}
