import { expect, test } from "bun:test";
import { hasPvhEntry, parseElfBits, parseNoteTypes, readInterpreter } from "../../src/rescue/build/elf.ts";
import type { ReadAt } from "../../src/lib/read-file.ts";

const reader =
  (bytes: Buffer): ReadAt =>
  (offset, length) =>
    bytes.subarray(offset, offset + length);

const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);

/** A note in the format of elf(5): lengths, type, name and text, each padded to four bytes. */
function note(name: string, type: number, text: Buffer): Buffer {
  const owner = Buffer.from(`${name}\0`);
  const head = Buffer.alloc(12);
  head.writeUInt32LE(owner.length);
  head.writeUInt32LE(text.length, 4);
  head.writeUInt32LE(type, 8);
  return Buffer.concat([head, padded(owner), padded(text)]);
}

/** An ELF file with one segment. */
function elf(bits: 32 | 64, type: number, content: Buffer): Buffer {
  const wide = bits === 64;
  const header = Buffer.alloc(64);
  header.write("\x7fELF", "latin1");
  header[4] = wide ? 2 : 1;
  header[5] = 1;
  if (wide) header.writeBigUInt64LE(64n, 32);
  else header.writeUInt32LE(64, 28);
  const size = wide ? 56 : 32;
  header.writeUInt16LE(size, wide ? 54 : 42);
  header.writeUInt16LE(1, wide ? 56 : 44);
  const segment = Buffer.alloc(size);
  segment.writeUInt32LE(type);
  if (wide) {
    segment.writeBigUInt64LE(BigInt(64 + size), 8);
    segment.writeBigUInt64LE(BigInt(content.length), 32);
  } else {
    segment.writeUInt32LE(64 + size, 4);
    segment.writeUInt32LE(content.length, 16);
  }
  return Buffer.concat([header, segment, content]);
}

const LOADER = Buffer.from("/lib64/ld-linux-x86-64.so.2\0");

test.each([32, 64] as const)("the loader of a %d-bit program", (bits) => {
  const file = elf(bits, 3, LOADER);
  expect(parseElfBits(file)).toBe(bits);
  expect(readInterpreter(reader(file))).toBe("/lib64/ld-linux-x86-64.so.2");
});

test("a static program has no loader", () => {
  expect(readInterpreter(reader(elf(64, 1, LOADER)))).toBeUndefined();
});

test.each([
  ["a script", Buffer.from(`#!/bin/sh\n${"#".repeat(100)}`)],
  ["an empty file", Buffer.alloc(0)],
  ["a truncated header", elf(64, 3, LOADER).subarray(0, 63)],
  ["program headers truncated", elf(64, 3, LOADER).subarray(0, 100)],
])("%s has no loader", (_name, bytes) => {
  expect(readInterpreter(reader(bytes))).toBeUndefined();
  expect(hasPvhEntry(reader(bytes))).toBe(false);
});

test("rejects a big-endian program", () => {
  const file = elf(64, 3, LOADER);
  file[5] = 2;
  expect(parseElfBits(file)).toBeUndefined();
});

const NOTES = [note("Linux", 18, Buffer.alloc(5)), note("Xen", 6, Buffer.from("linux\0"))];

test("distinguishes notes by their owner", () => {
  const notes = Buffer.concat([...NOTES, note("Xen", 18, Buffer.alloc(8))]);
  expect(parseNoteTypes(notes, "Xen")).toEqual([6, 18]);
  expect(parseNoteTypes(notes, "Linux")).toEqual([18]);
  expect(parseNoteTypes(notes.subarray(0, 10), "Linux")).toEqual([]);
});

test.each([32, 64] as const)("a %d-bit kernel's PVH entry is Xen's note 18, not another owner's", (bits) => {
  const with18 = [...NOTES, note("Xen", 18, Buffer.alloc(8))];
  expect(hasPvhEntry(reader(elf(bits, 4, Buffer.concat(with18))))).toBe(true);
  expect(hasPvhEntry(reader(elf(bits, 4, Buffer.concat(NOTES))))).toBe(false);
});
