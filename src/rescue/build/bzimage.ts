/**
 * Layout of a Linux boot image (Documentation/arch/x86/boot.rst, "The real-mode kernel header"), which contains the
 * compressed kernel.
 */
export interface BzImage {
  /** The release, as in `uname -r`. */
  version: string;
  /** A 64-bit kernel. */
  wide: boolean;
  /** Offset and length of the compressed kernel, without the size at its end. */
  offset: number;
  length: number;
  /** Offset of the uncompressed length after the payload: 4 bytes, little-endian. */
  sizeOffset: number;
  unpacker: Unpacker | undefined;
}

export interface Unpacker {
  program: string;
  args: readonly string[];
  magic: string;
}

/** Compression formats of kernels (Linux, lib/decompress.c); the programs read stdin and write stdout. */
export const UNPACKERS: readonly Unpacker[] = [
  { program: "gzip", args: ["-dc"], magic: "\x1f\x8b" },
  { program: "xz", args: ["-dc"], magic: "\xfd7zXZ" },
  { program: "zstd", args: ["-dcq"], magic: "\x28\xb5\x2f\xfd" },
  { program: "lz4", args: ["-dcq"], magic: "\x02\x21\x4c\x18" },
  { program: "bzip2", args: ["-dc"], magic: "BZh" },
  { program: "lzma", args: ["-dc"], magic: "\x5d\0\0" },
  { program: "lzop", args: ["-dc"], magic: "\x89LZO" },
];

/** Bytes of an image that `parseBzImage` needs. */
export const BZIMAGE_HEADER_BYTES = 1 << 17;

const XLF_KERNEL_64 = 1;

/** @param bytes the file's first bytes; undefined if it is not a boot image of protocol 2.08 (Linux 2.6.26) or later */
export function parseBzImage(bytes: Buffer): BzImage | undefined {
  if (bytes.length < 0x264 || bytes.toString("latin1", 0x202, 0x206) !== "HdrS") return undefined;
  const protocol = bytes.readUInt16LE(0x206);
  if (protocol < 0x208) return undefined;
  const setup = ((bytes[0x1f1] || 4) + 1) * 512;
  const versionAt = bytes.readUInt16LE(0x20e) + 0x200;
  const versionText = bytes.toString("latin1", versionAt, versionAt + 256);
  const version = /^[^\s\0]+/.exec(versionText)?.[0];
  if (!version) return undefined;
  const offset = setup + bytes.readUInt32LE(0x248);
  const payload = bytes.readUInt32LE(0x24c);
  const start = bytes.toString("latin1", offset, offset + 8);
  const unpacker = UNPACKERS.find(({ magic }) => start.startsWith(magic));
  // gzip streams end with that size themselves (RFC 1952).
  const appended = unpacker?.program === "gzip" ? 0 : 4;
  return {
    version,
    wide: protocol >= 0x20c && (bytes.readUInt16LE(0x236) & XLF_KERNEL_64) !== 0,
    offset,
    length: payload - appended,
    sizeOffset: offset + payload - 4,
    unpacker,
  };
}
