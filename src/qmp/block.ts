import type { QmpClient } from "./client.ts";
import { LENT, type ArgsOf, type TransactionAction } from "./commands.ts";

/** A dirty bitmap (qapi/block-core.json, BlockDirtyInfo). */
export interface Bitmap {
  name: string;
  /** Dirty bytes. */
  count: number;
  /** It records all writes, and is consistent: no crash has invalidated it. */
  sound: boolean;
}

/** A block node of a running qemu. */
export interface BlockNode {
  /** Its node-name. */
  node: string;
  driver: string;
  /** Its filename, as given to qemu. */
  file: string;
  virtualBytes: number;
  /** qemu has marked the image corrupt (qcow2). */
  corrupt: boolean;
  bitmaps: Bitmap[];
}

export async function listBlockNodes(client: QmpClient): Promise<BlockNode[]> {
  const all = await client.execute("query-named-block-nodes", { flat: true });
  const lent = all.some(({ file }) => file.startsWith(LENT)) ? await readLent(client) : undefined;
  return all.map((info) => ({
    node: info["node-name"] ?? "",
    driver: info.drv,
    file: lent?.get(info.file) ?? info.file,
    virtualBytes: info.image["virtual-size"],
    corrupt: info.image["format-specific"]?.data?.corrupt === true,
    bitmaps: (info["dirty-bitmaps"] ?? []).flatMap(({ name, count, recording, inconsistent }) =>
      name === undefined ? [] : [{ name, count, sound: recording && inconsistent !== true }],
    ),
  }));
}

/** Paths of files that qemu was handed, by the names that it has for them. */
async function readLent(client: QmpClient): Promise<Map<string, string>> {
  const sets = await client.execute("query-fdsets");
  return new Map(
    sets.flatMap(({ "fdset-id": id, fds }) =>
      fds.flatMap(({ opaque }) => (opaque === undefined ? [] : [[`${LENT}${id}`, opaque]])),
    ),
  );
}

/** Adds a persistent bitmap. */
export const addingBitmap = (node: string, name: string): TransactionAction => ({
  type: "block-dirty-bitmap-add",
  data: { node, name, persistent: true },
});

export const removingBitmap = (node: string, name: string): TransactionAction => ({
  type: "block-dirty-bitmap-remove",
  data: { node, name },
});

/** Property `drive` of a device: the node of the guest's disk. */
const driveOf = (device: string): ArgsOf<"qom-get"> => ({
  path: `/machine/peripheral/${device}`,
  property: "drive",
});

export const getDrive = (client: QmpClient, device: string): Promise<unknown> =>
  client.execute("qom-get", driveOf(device));

/** Arguments of `qom-set` to attach another node. */
export const settingDrive = (device: string, node: string): ArgsOf<"qom-set"> => ({
  ...driveOf(device),
  value: node,
});

export const removeNode = (client: QmpClient, node: string): Promise<unknown> =>
  client.execute("blockdev-del", { "node-name": node });
