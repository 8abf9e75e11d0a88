import type { ReadAt } from "../../lib/read-file.ts";

const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_INTERP = 3;
const PT_NOTE = 4;
/** XEN_ELFNOTE_PHYS32_ENTRY (Xen's public/elfnote.h): where qemu's `-kernel` enters an uncompressed Linux. */
const PVH_ENTRY = 18;
/** Maximum size of the headers read here; a file with more is damaged. */
const LARGEST_PART = 1 << 20;

interface Segment {
  type: number;
  offset: number;
  length: number;
  /** Virtual address. */
  address: number;
}

/** Width of addresses; undefined if it is not a little-endian ELF file (elf(5)). */
export function parseElfBits(header: Buffer): 32 | 64 | undefined {
  if (header.length < 52 || header.toString("latin1", 0, 4) !== "\x7fELF" || header[5] !== 1)
    return undefined;
  return header[4] === 2 ? 64 : header[4] === 1 ? 32 : undefined;
}

/** Architecture (elf(5), e_machine); undefined for other files. */
export const parseElfMachine = (header: Buffer): number | undefined =>
  parseElfBits(header) && header.readUInt16LE(18);

/** Program headers, the fields needed here (elf(5)). */
function readSegments(read: ReadAt): Segment[] {
  const header = read(0, 64);
  const bits = parseElfBits(header);
  if (!bits || header.length < 64) return [];
  const wide = bits === 64;
  const table = wide ? Number(header.readBigUInt64LE(32)) : header.readUInt32LE(28);
  const size = header.readUInt16LE(wide ? 54 : 42);
  const count = header.readUInt16LE(wide ? 56 : 44);
  if (size < (wide ? 56 : 32)) return [];
  const bytes = read(table, size * count);
  const segments: Segment[] = [];
  for (let at = 0; at + size <= bytes.length; at += size) {
    segments.push({
      type: bytes.readUInt32LE(at),
      offset: wide ? Number(bytes.readBigUInt64LE(at + 8)) : bytes.readUInt32LE(at + 4),
      length: wide ? Number(bytes.readBigUInt64LE(at + 32)) : bytes.readUInt32LE(at + 16),
      address: wide ? Number(bytes.readBigUInt64LE(at + 16)) : bytes.readUInt32LE(at + 8),
    });
  }
  return segments;
}

/** The loader of an ELF program (PT_INTERP); undefined for static programs and other files. */
export function readInterpreter(read: ReadAt): string | undefined {
  const segment = readSegments(read).find(({ type }) => type === PT_INTERP);
  if (!segment || segment.length > LARGEST_PART) return undefined;
  return read(segment.offset, segment.length).toString("latin1").split("\0")[0] || undefined;
}

const DT_NEEDED = 1;
const DT_STRTAB = 5;
const DT_RPATH = 15;
const DT_RUNPATH = 29;

/** Shared libraries that an ELF file needs, and its search path. */
export interface Needs {
  names: string[];
  /** May contain `$ORIGIN`. */
  directories: string[];
}

/** Reads the dynamic section (elf(5)); nothing for static programs and other files. */
export function readNeeds(read: ReadAt): Needs {
  const segments = readSegments(read);
  const dynamic = segments.find(({ type }) => type === PT_DYNAMIC);
  if (!dynamic || dynamic.length > LARGEST_PART) return { names: [], directories: [] };
  const wide = parseElfBits(read(0, 64)) === 64;
  const bytes = read(dynamic.offset, dynamic.length);
  const size = wide ? 16 : 8;
  const entries: [tag: number, value: number][] = [];
  for (let at = 0; at + size <= bytes.length; at += size)
    entries.push(
      wide
        ? [Number(bytes.readBigInt64LE(at)), Number(bytes.readBigUInt64LE(at + 8))]
        : [bytes.readInt32LE(at), bytes.readUInt32LE(at + 4)],
    );
  const strings = entries.find(([tag]) => tag === DT_STRTAB)?.[1];
  const home = segments.find(
    ({ type, address, length }) =>
      type === PT_LOAD && strings !== undefined && strings >= address && strings < address + length,
  );
  if (strings === undefined || !home) return { names: [], directories: [] };
  const table = home.offset + strings - home.address;
  const text = (at: number): string =>
    read(table + at, LONGEST_NAME)
      .toString("latin1")
      .split("\0")[0]!;
  const texts = (...tags: number[]): string[] =>
    entries.filter(([tag]) => tags.includes(tag)).map(([, at]) => text(at));
  return {
    names: texts(DT_NEEDED),
    directories: texts(DT_RPATH, DT_RUNPATH).flatMap((list) => list.split(":").filter(Boolean)),
  };
}

const LONGEST_NAME = 4096;

const align4 = (length: number): number => (length + 3) & ~3;

/** Types of the notes that `name` left in a note segment. */
export function parseNoteTypes(bytes: Buffer, name: string): number[] {
  const types: number[] = [];
  for (let at = 0; at + 12 <= bytes.length;) {
    const nameLength = bytes.readUInt32LE(at);
    const textLength = bytes.readUInt32LE(at + 4);
    const owner = bytes.toString("latin1", at + 12, at + 12 + nameLength).split("\0")[0];
    if (owner === name) types.push(bytes.readUInt32LE(at + 8));
    at += 12 + align4(nameLength) + align4(textLength);
  }
  return types;
}

/** Can qemu start this kernel without its boot code (PVH)? */
export const hasPvhEntry = (read: ReadAt): boolean =>
  readSegments(read)
    .filter(({ type, length }) => type === PT_NOTE && length <= LARGEST_PART)
    .some(({ offset, length }) => parseNoteTypes(read(offset, length), "Xen").includes(PVH_ENTRY));
