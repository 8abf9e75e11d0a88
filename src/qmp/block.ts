import type { QmpClient } from "./client.ts";

/** A dirty bitmap: it notes which parts of a disk were written to since it was made (qapi/block-core.json). */
export interface Bitmap {
  name: string;
  /** Bytes it has noted. */
  count: number;
  /** It can be relied on: it notes everything, and was not lost in a crash. */
  sound: boolean;
}

/** A disk's format node, as qemu has it open. */
export interface BlockNode {
  /** Its node-name. */
  node: string;
  /** As qemu was told it. */
  file: string;
  virtualBytes: number;
  bitmaps: Bitmap[];
}

/** qapi/block-core.json, BlockDeviceInfo. */
interface NodeInfo {
  "node-name": string;
  drv: string;
  file: string;
  image: { "virtual-size": number };
  "dirty-bitmaps"?: { name?: string; count: number; recording: boolean; inconsistent?: boolean }[];
}

/** All qcow2 nodes. */
export async function listBlockNodes(client: QmpClient): Promise<BlockNode[]> {
  const all = (await client.execute("query-named-block-nodes", { flat: true })) as NodeInfo[];
  return all
    .filter(({ drv }) => drv === "qcow2")
    .map((info) => ({
      node: info["node-name"],
      file: info.file,
      virtualBytes: info.image["virtual-size"],
      bitmaps: (info["dirty-bitmaps"] ?? []).flatMap(({ name, count, recording, inconsistent }) =>
        name === undefined ? [] : [{ name, count, sound: recording && inconsistent !== true }],
      ),
    }));
}

export interface BitmapChange {
  node: string;
  add?: string;
  remove: readonly string[];
}

/** Adds and removes bitmaps that are kept in the images, on all disks or on none. */
export async function changeBitmaps(client: QmpClient, changes: readonly BitmapChange[]): Promise<void> {
  const actions = changes.flatMap(({ node, add, remove }) => [
    ...(add === undefined
      ? []
      : [{ type: "block-dirty-bitmap-add", data: { node, name: add, persistent: true } }]),
    ...remove.map((name) => ({ type: "block-dirty-bitmap-remove", data: { node, name } })),
  ]);
  if (actions.length > 0) await client.execute("transaction", { actions });
}
