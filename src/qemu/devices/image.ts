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

/** Writable block node of a qcow2 image. */
export const buildWritableNode = (path: string, node: string, base?: ReadImage): ArgsOf<"blockdev-add"> => ({
  driver: "qcow2",
  "node-name": node,
  "read-only": false,
  file: { driver: "file", filename: path },
  backing: base ? buildImageNode(base) : null,
});
