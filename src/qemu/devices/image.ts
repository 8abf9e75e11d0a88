import type { ImageFormat, ReadImage } from "../../machine/types.ts";
import type { ArgsOf } from "../../qmp/commands.ts";

/** Formats with backing files (qapi/block-core.json, BlockdevOptionsGenericCOWFormat). */
const OVERLAYS: readonly ImageFormat[] = ["qcow2", "qed", "vmdk"];

export const fileDriver = ({ blockDevice }: { blockDevice?: boolean }): string =>
  blockDevice ? "host_device" : "file";

/**
 * Read-only block node of an image. The caller gives its format and backing file: nothing is probed, and references in the
 * image are ignored. JSON needs no escaping of paths.
 */
export function buildImageNode(image: ReadImage, base = image.base): Record<string, unknown> {
  const backing = base ? { backing: buildImageNode(base) } : { backing: null };
  return {
    driver: image.format,
    "read-only": true,
    file: { driver: fileDriver(image), filename: image.path, "read-only": true },
    ...(OVERLAYS.includes(image.format) ? backing : {}),
  };
}

/** qemu may be built without it. */
export const UNRELIABLE = "quorum";

/**
 * The same of an image that may become unreadable while `block-stream` copies from it. Its filter (block/copy-on-read.c) asks what the
 * image has, and answers the guest's read with success, and without data, if that cannot be read. qemu's driver `quorum` says
 * then that there is data (block/quorum.c, quorum_co_block_status), so that the read itself fails.
 */
export const buildUnreliableNode = (image: ReadImage) => ({
  driver: UNRELIABLE as "quorum",
  "read-only": true,
  "vote-threshold": 1,
  "read-pattern": "fifo" as const,
  children: [buildImageNode(image)],
});

/** Writable block node of a qcow2 image. */
export const buildWritableNode = (path: string, node: string, base?: ReadImage): ArgsOf<"blockdev-add"> => ({
  driver: "qcow2",
  "node-name": node,
  "read-only": false,
  file: { driver: "file", filename: path },
  backing: base ? buildImageNode(base) : null,
});
