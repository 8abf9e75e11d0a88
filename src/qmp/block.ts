import type { QmpClient } from "./client.ts";
import type { ArgsOf, TransactionAction } from "./commands.ts";

/** A dirty bitmap: it notes which parts of a disk were written to since it was made (qapi/block-core.json). */
export interface Bitmap {
  name: string;
  /** Bytes it has noted. */
  count: number;
  /** It can be relied on: it notes everything, and was not lost in a crash. */
  sound: boolean;
}

/** A block node, as qemu has it open. */
export interface BlockNode {
  /** Its node-name. */
  node: string;
  driver: string;
  /** The file it is, or is in, as qemu was told it. */
  file: string;
  virtualBytes: number;
  /** qemu has found its metadata inconsistent (qcow2). */
  corrupt: boolean;
  bitmaps: Bitmap[];
}

export async function listBlockNodes(client: QmpClient): Promise<BlockNode[]> {
  const all = await client.execute("query-named-block-nodes", { flat: true });
  return all.map((info) => ({
    node: info["node-name"] ?? "",
    driver: info.drv,
    file: info.file,
    virtualBytes: info.image["virtual-size"],
    corrupt: info.image["format-specific"]?.data?.corrupt === true,
    bitmaps: (info["dirty-bitmaps"] ?? []).flatMap(({ name, count, recording, inconsistent }) =>
      name === undefined ? [] : [{ name, count, sound: recording && inconsistent !== true }],
    ),
  }));
}

/** Adds a bitmap that is kept in the image. */
export const addingBitmap = (node: string, name: string): TransactionAction => ({
  type: "block-dirty-bitmap-add",
  data: { node, name, persistent: true },
});

export const removingBitmap = (node: string, name: string): TransactionAction => ({
  type: "block-dirty-bitmap-remove",
  data: { node, name },
});

/** A device's `drive`: by it the guest's disk gets another node. */
const driveOf = (device: string): ArgsOf<"qom-get"> => ({
  path: `/machine/peripheral/${device}`,
  property: "drive",
});

export const getDrive = (client: QmpClient, device: string): Promise<unknown> =>
  client.execute("qom-get", driveOf(device));

/** What `qom-set` is told. */
export const settingDrive = (device: string, node: string): ArgsOf<"qom-set"> => ({
  ...driveOf(device),
  value: node,
});

export const removeNode = (client: QmpClient, node: string): Promise<unknown> =>
  client.execute("blockdev-del", { "node-name": node });
