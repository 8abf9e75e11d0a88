import { closeSync, fstatSync, readSync } from "node:fs";
import { VmError } from "../lib/errors.ts";
import { openNamed } from "../lib/read-file.ts";
import { plain } from "../lib/text.ts";
import { parseImageHeader } from "./image-header.ts";
import { shellQuote } from "../lib/shell.ts";

/** A kind of file, by its magic number, that would be used as a raw image. */
interface Kind {
  what: string;
  magic: string;
  at?: number;
  /** Hint: how to get an image from it. @param from quoted for a shell, as is `to` */
  unpack(from: string, to: string): string;
}

const filter =
  (program: string) =>
  (from: string, to: string): string =>
    `decompress it: ${program} < ${from} > ${to}`;
const archive =
  (words: string) =>
  (from: string): string =>
    `extract it, then use the image in it: ${words} ${from}`;
const convertHint =
  (format: string) =>
  (from: string, to: string): string =>
    `convert it: qemu-img convert -f ${format} -O qcow2 ${from} ${to}`;
const downloadAgain = (): string =>
  "compare its size and checksum with the published ones, and download it again";

const KINDS: readonly Kind[] = [
  { what: "compressed with xz", magic: "\xfd7zXZ\0", unpack: filter("xz -dc") },
  { what: "compressed with gzip", magic: "\x1f\x8b\x08", unpack: filter("gzip -dc") },
  { what: "compressed with zstd", magic: "\x28\xb5\x2f\xfd", unpack: filter("zstd -dc") },
  { what: "compressed with bzip2", magic: "BZh", unpack: filter("bzip2 -dc") },
  { what: "compressed with lz4", magic: "\x04\x22\x4d\x18", unpack: filter("lz4 -dc") },
  { what: "compressed with lz4", magic: "\x02\x21\x4c\x18", unpack: filter("lz4 -dc") },
  { what: "compressed with lzip", magic: "LZIP", unpack: filter("lzip -dc") },
  { what: "compressed with lzop", magic: "\x89LZO\0", unpack: filter("lzop -dc") },
  { what: "compressed with compress", magic: "\x1f\x9d", unpack: filter("gzip -dc") },
  { what: "compressed with zip", magic: "PK\x03\x04", unpack: archive("unzip") },
  { what: "compressed with 7z", magic: "7z\xbc\xaf\x27\x1c", unpack: archive("7z x") },
  { what: "compressed with rar", magic: "Rar!\x1a\x07", unpack: archive("unrar x") },
  // An OVA is a tar archive: OVF specification (DSP0243), 5.3.
  { what: "an archive (tar, OVA)", magic: "ustar", at: 257, unpack: archive("tar -xf") },
  { what: "an archive (cpio)", magic: "070701", unpack: archive("cpio -id <") },
  { what: "an archive (ar, deb)", magic: "!<arch>\n", unpack: archive("ar x") },
  { what: "a backup of Proxmox VE", magic: "VMA\0", unpack: archive("vma extract") },
  // qemu reads these: block/vmdk.c, parallels.c, qcow.c, bochs.c.
  { what: "an ESX disk (COWD)", magic: "COWD", unpack: convertHint("vmdk") },
  { what: "a Parallels disk", magic: "WithoutFreeSpace", unpack: convertHint("parallels") },
  { what: "a Parallels disk", magic: "WithouFreSpacExt", unpack: convertHint("parallels") },
  { what: "a qcow disk, version 1", magic: "QFI\xfb\0\0\0\x01", unpack: convertHint("qcow") },
  { what: "a Bochs disk", magic: "Bochs Virtual HD Image", unpack: convertHint("bochs") },
];

/** Control characters except tab, line feed, form feed and carriage return: bytes that text does not contain. */
const isBinary = (byte: number): boolean => byte < 0x20 && ![0x09, 0x0a, 0x0c, 0x0d].includes(byte);

const HEAD_BYTES = 512;

/**
 * Pure: detects files that are not disk images.
 * @param head the first 512 bytes, or all of a shorter file
 * @returns description for the message, and hint; undefined if it may be an image
 */
export function detectNonImage(head: Buffer): Pick<Kind, "what" | "unpack"> | undefined {
  if (head.length === 0) return { what: "empty", unpack: downloadAgain };
  const found = KINDS.find(({ magic, at = 0 }) => head.toString("latin1", at, at + magic.length) === magic);
  if (found) return found;
  // A VMDK descriptor is text, and an image.
  const text = !head.some(isBinary) && parseImageHeader(padded(head)).format === "raw";
  return text ? { what: `text that starts with ${quoteStart(head)}`, unpack: downloadAgain } : undefined;
}

const padded = (head: Buffer): Buffer => Buffer.concat([head, Buffer.alloc(HEAD_BYTES)]);

/** First characters of a text, as a JSON string. */
const quoteStart = (head: Buffer): string =>
  JSON.stringify(plain(head.toString().replaceAll(/\s+/g, " ").trimStart().slice(0, 20)));

/** File name without the suffix of the compression; never the name itself. */
function unpackedName(path: string): string {
  const bare = path.replace(/\.(xz|gz|zst|bz2|lz4|lz|lzo|Z)$/, "");
  return bare === path ? `${path}.img` : bare;
}

/**
 * Refuses a file that is not a disk image.
 * @param what start of the error message: `cannot use the image`
 * @throws 74 for an archive, a compressed file, text, an empty file; a system error
 */
export function refuseNonImage(path: string, what: string): void {
  const fd = openNamed(path);
  let head = Buffer.alloc(HEAD_BYTES);
  try {
    if (!fstatSync(fd).isFile()) return;
    head = head.subarray(0, readSync(fd, head, 0, head.length, 0));
  } finally {
    closeSync(fd);
  }
  const found = detectNonImage(head);
  if (!found) return;
  throw new VmError("io", `${what} ${path}: it is ${found.what}`, {
    hint: found.unpack(shellQuote(path), shellQuote(unpackedName(path))),
  });
}
