/** Headers of tar archives: ustar (POSIX.1-1988), with sizes in base 256 from 8 GiB on (GNU tar, "Basic Tar Format"). */

export const TAR_BLOCK = 512;

/** Two blocks of zeroes end an archive. */
export const TAR_END = Buffer.alloc(2 * TAR_BLOCK);

/** Zeroes after a member's data, up to the next block. */
export const tarPadding = (bytes: number): number => (TAR_BLOCK - (bytes % TAR_BLOCK)) % TAR_BLOCK;

/** Length of a member in an archive. */
export const tarLength = (bytes: number): number => TAR_BLOCK + bytes + tarPadding(bytes);

/** The largest size in eleven octal digits. */
const MAX_OCTAL = 8 ** 11 - 1;

/** Longest name in a header. */
export const MAX_TAR_NAME = 100;

const SUM = { start: 148, end: 156 };

/** A checksum counts itself as blanks. */
function checksum(block: Buffer): number {
  let sum = 32 * (SUM.end - SUM.start);
  for (const [at, byte] of block.entries()) if (at < SUM.start || at >= SUM.end) sum += byte;
  return sum;
}

const octal = (value: number, digits: number): string => `${value.toString(8).padStart(digits, "0")}\0`;

/**
 * Pure: the header of a regular file, mode 0600, of root.
 * @param name at most `MAX_TAR_NAME` bytes
 * @param seconds modification time
 */
export function buildTarHeader(name: string, bytes: number, seconds: number): Buffer {
  const block = Buffer.alloc(TAR_BLOCK);
  block.write(name, 0);
  block.write(`${octal(0o600, 7)}${octal(0, 7)}${octal(0, 7)}`, 100);
  if (bytes <= MAX_OCTAL) block.write(octal(bytes, 11), 124);
  else {
    block.writeUInt8(0x80, 124);
    block.writeBigUInt64BE(BigInt(bytes), 128);
  }
  block.write(octal(Math.max(0, seconds), 11), 136);
  block.write("0", 156);
  block.write("ustar\x0000", 257);
  block.write(`${checksum(block).toString(8).padStart(6, "0")}\0 `, SUM.start);
  return block;
}

/** What a header says. */
export interface TarMember {
  name: string;
  bytes: number;
  /** `0` or NUL: a regular file. */
  type: string;
}

/** Pure. @returns undefined for a block that is not a header */
export function parseTarHeader(block: Buffer): TarMember | undefined {
  const text = (start: number, length: number): string => {
    const field = block.subarray(start, start + length);
    const end = field.indexOf(0);
    return field.subarray(0, end < 0 ? length : end).toString();
  };
  const number = (start: number, length: number): number | undefined => {
    const digits = text(start, length).trim();
    return /^[0-7]{1,12}$/.test(digits) ? Number.parseInt(digits, 8) : undefined;
  };
  if (number(SUM.start, 8) !== checksum(block)) return undefined;
  // All of the field but its first bit is a number: of 95 bits, of which 53 can be used.
  const large = block.readUInt8(124) === 0x80 && block.readUInt32BE(124) === 0x80000000;
  const bytes = large ? Number(block.readBigUInt64BE(128)) : number(124, 12);
  if (bytes === undefined || !Number.isSafeInteger(bytes)) return undefined;
  const prefix = text(257, 6) === "ustar" && block.readUInt8(262) === 0 ? text(345, 155) : "";
  const name = text(0, 100);
  return { name: prefix ? `${prefix}/${name}` : name, bytes, type: text(156, 1) || "0" };
}
