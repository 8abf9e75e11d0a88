import { statSync } from "node:fs";
import { deviceOf } from "../qemu/devices/disk.ts";
import { listBlockNodes, type BlockNode } from "../qmp/block.ts";
import type { QmpClient } from "../qmp/client.ts";

/** A disk that a running qemu has open. */
export interface AttachedDisk extends BlockNode {
  /** Its image, as given to qemu. */
  path: string;
  /** False: no device uses it; the guest has released it, or it is only being plugged in. */
  plugged: boolean;
}

/** Devices of the running machine that have an id. */
export async function listDevices(qmp: QmpClient): Promise<Set<string>> {
  const found = await qmp.execute("qom-list", { path: "/machine/peripheral" });
  return new Set(found.filter(({ type }) => type.startsWith("child<")).map(({ name }) => name));
}

/** The disks of the running machine, by the names of their nodes and devices. */
export async function listAttached(qmp: QmpClient): Promise<AttachedDisk[]> {
  const [nodes, devices] = await Promise.all([listBlockNodes(qmp), listDevices(qmp)]);
  return nodes.flatMap((node) => {
    const file = nodes.find((item) => item.node === `${node.node}-file`);
    return file === undefined || !/^disk\d+$/.test(node.node)
      ? []
      : [{ ...node, path: file.file, plugged: devices.has(deviceOf(node.node)) }];
  });
}

export const findAttached = (disks: readonly AttachedDisk[], path: string): AttachedDisk | undefined =>
  disks.find((disk) => isSameFile(disk.path, path));

export function isSameFile(one: string, other: string): boolean {
  try {
    const [a, b] = [statSync(one), statSync(other)];
    return a.ino === b.ino && a.dev === b.dev;
  } catch {
    return one === other;
  }
}
