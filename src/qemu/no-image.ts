import { closeSync, fstatSync, readSync } from "node:fs";
import { VmError } from "../lib/errors.ts";
import { openNamed } from "../lib/read-file.ts";
import { plain } from "../lib/text.ts";
import { parseImageHeader } from "./image-header.ts";
import { shellQuote } from "../lib/shell.ts";

/** A kind of file that begins with this; as a disk it would be taken for a raw image. */
interface Kind {
  what: string;
  magic: string;
  at?: number;
  /** What makes an image of it. @param from both quoted for a shell */
  unpack(from: string, to: string): string;
}

const filter =
  (program: string) =>
  (from: string, to: string): string =>
    `unpack it: ${program} < ${from} > ${to}`;
const archive =
  (words: string) =>
  (from: string): string =>
    `unpack it, then name the image that was in it: ${words} ${from}`;
const convertHint =
  (format: string) =>
  (from: string, to: string): string =>
    `convert it: qemu-img convert -f ${format} -O qcow2 ${from} ${to}`;
const getAnew = (): string => "compare its size and checksum with its maker's, and download it again";

const KINDS: readonly Kind[] = [
  { what: "packed by xz", magic: "\xfd7zXZ\0", unpack: filter("xz -dc") },
  { what: "packed by gzip", magic: "\x1f\x8b\x08", unpack: filter("gzip -dc") },
  { what: "packed by zstd", magic: "\x28\xb5\x2f\xfd", unpack: filter("zstd -dc") },
  { what: "packed by bzip2", magic: "BZh", unpack: filter("bzip2 -dc") },
  { what: "packed by lz4", magic: "\x04\x22\x4d\x18", unpack: filter("lz4 -dc") },
  { what: "packed by lz4", magic: "\x02\x21\x4c\x18", unpack: filter("lz4 -dc") },
  { what: "packed by lzip", magic: "LZIP", unpack: filter("lzip -dc") },
  { what: "packed by lzop", magic: "\x89LZO\0", unpack: filter("lzop -dc") },
  { what: "packed by compress", magic: "\x1f\x9d", unpack: filter("gzip -dc") },
  { what: "packed by zip", magic: "PK\x03\x04", unpack: archive("unzip") },
  { what: "packed by 7z", magic: "7z\xbc\xaf\x27\x1c", unpack: archive("7z x") },
  { what: "packed by rar", magic: "Rar!\x1a\x07", unpack: archive("unrar x") },
  // An OVA is one: OVF specification (DSP0243), 5.3.
  { what: "an archive (tar, OVA)", magic: "ustar", at: 257, unpack: archive("tar -xf") },
  { what: "an archive (cpio)", magic: "070701", unpack: archive("cpio -id <") },
  { what: "an archive (ar, deb)", magic: "!<arch>\n", unpack: archive("ar x") },
  { what: "a backup of Proxmox VE", magic: "VMA\0", unpack: archive("vma extract") },
  // block/vmdk.c, parallels.c, qcow.c, bochs.c: qemu reads them.
  { what: "an ESX disk (COWD)", magic: "COWD", unpack: convertHint("vmdk") },
  { what: "a Parallels disk", magic: "WithoutFreeSpace", unpack: convertHint("parallels") },
  { what: "a Parallels disk", magic: "WithouFreSpacExt", unpack: convertHint("parallels") },
  { what: "a disk of qcow's first version", magic: "QFI\xfb\0\0\0\x01", unpack: convertHint("qcow") },
  { what: "a Bochs disk", magic: "Bochs Virtual HD Image", unpack: convertHint("bochs") },
];

/** Text has none of these bytes: control characters but for tabs, ends of lines and pages. */
const isBinary = (byte: number): boolean => byte < 0x20 && ![0x09, 0x0a, 0x0c, 0x0d].includes(byte);

const HEAD_BYTES = 512;

/**
 * Pure: what a file is that can be no disk image.
 * @param head its first 512 bytes, fewer where there are no more
 * @returns for people, and what to do about it, from its path and that of an image to be; undefined where it may be one
 */
export function findNoImage(head: Buffer): Pick<Kind, "what" | "unpack"> | undefined {
  if (head.length === 0) return { what: "empty", unpack: getAnew };
  const found = KINDS.find(({ magic, at = 0 }) => head.toString("latin1", at, at + magic.length) === magic);
  if (found) return found;
  // A descriptor of a vmdk is text, and an image.
  const text = !head.some(isBinary) && parseImageHeader(padded(head)).format === "raw";
  return text ? { what: `text that begins with ${firstWords(head)}`, unpack: getAnew } : undefined;
}

const padded = (head: Buffer): Buffer => Buffer.concat([head, Buffer.alloc(HEAD_BYTES)]);

/** In quotes, as JSON has them. */
const firstWords = (head: Buffer): string =>
  JSON.stringify(plain(head.toString().replaceAll(/\s+/g, " ").trimStart().slice(0, 20)));

/** The image's name without what packing adds; never the file itself. */
function unpackedName(path: string): string {
  const bare = path.replace(/\.(xz|gz|zst|bz2|lz4|lz|lzo|Z)$/, "");
  return bare === path ? `${path}.img` : bare;
}

/**
 * Looks at the first bytes of an image that the user named.
 * @param what begins the error: `cannot use the image`
 * @throws 74 for an archive, a packed file, text, an empty file; a system error
 */
export function refuseNoImage(path: string, what: string): void {
  const fd = openNamed(path);
  let head = Buffer.alloc(HEAD_BYTES);
  try {
    if (!fstatSync(fd).isFile()) return;
    head = head.subarray(0, readSync(fd, head, 0, head.length, 0));
  } finally {
    closeSync(fd);
  }
  const found = findNoImage(head);
  if (!found) return;
  throw new VmError("io", `${what} ${path}: it is ${found.what}`, {
    hint: found.unpack(shellQuote(path), shellQuote(unpackedName(path))),
  });
}
