import type { ImageFormat, ReadImage } from "../../machine/types.ts";
import type { ArgsOf } from "../../qmp/commands.ts";

/** Formats whose images may lie over others (qapi/block-core.json, BlockdevOptionsGenericCOWFormat). */
const OVERLAYS: readonly ImageFormat[] = ["qcow2", "qed", "vmdk"];

export const fileDriver = ({ blockDevice }: { blockDevice?: boolean }): string =>
  blockDevice ? "host_device" : "file";

/**
 * An image as a block node that is only read. Its format and the image below it are what the caller says:
 * nothing is guessed, and no claim in it is believed. JSON takes any path as it is.
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

/** A qcow2 image as a block node that is written to. */
export const buildWritableNode = (path: string, node: string, base?: ReadImage): ArgsOf<"blockdev-add"> => ({
  driver: "qcow2",
  "node-name": node,
  "read-only": false,
  file: { driver: "file", filename: path },
  backing: base ? buildImageNode(base) : null,
});
