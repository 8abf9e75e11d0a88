import { expect, test } from "bun:test";
import { isBitmapDirectory } from "../../src/qemu/bitmaps.ts";

interface Entry {
  offset?: number;
  tableSize?: number;
  type?: number;
  granularityBits?: number;
  name?: string;
  nameBytes?: number;
  extra?: number;
}

/** docs/interop/qcow2.txt, "Bitmap directory". */
function entry(value: Entry = {}): Buffer {
  const { name = "vm-0123456789abcdef" } = value;
  const bytes = Buffer.alloc(Math.ceil((24 + name.length) / 8) * 8);
  bytes.writeBigUInt64BE(BigInt(value.offset ?? 0x50000), 0);
  bytes.writeUInt32BE(value.tableSize ?? 1, 8);
  bytes.writeUInt32BE(2, 12);
  bytes.writeUInt8(value.type ?? 1, 16);
  bytes.writeUInt8(value.granularityBits ?? 16, 17);
  bytes.writeUInt16BE(value.nameBytes ?? name.length, 18);
  bytes.writeUInt32BE(value.extra ?? 0, 20);
  bytes.write(name, 24);
  return bytes;
}

const check = (...entries: Buffer[]): boolean => isBitmapDirectory(Buffer.concat(entries), 65_536);

test("reads one and several bitmaps", () => {
  expect(check(entry())).toBeTrue();
  expect(check(entry(), entry({ name: "x" }), entry({ name: "a".repeat(1023) }))).toBeTrue();
  expect(check(entry({ granularityBits: 9 }), entry({ granularityBits: 31 }))).toBeTrue();
});

test.each<[string, Buffer[]]>([
  ["zeroes", [Buffer.alloc(48)]],
  ["trailing zeroes", [entry(), Buffer.alloc(48)]],
  ["no name", [entry({ name: "" })]],
  ["a name beyond the end", [entry({ nameBytes: 80 })]],
  ["a name that is too long", [entry({ name: "a".repeat(1024) })]],
  ["a table at offset 0", [entry({ offset: 0 })]],
  ["an unaligned table", [entry({ offset: 0x50200 })]],
  ["an empty table", [entry({ tableSize: 0 })]],
  ["another type", [entry({ type: 2 })]],
  ["pieces too small", [entry({ granularityBits: 8 })]],
  ["pieces too large", [entry({ granularityBits: 32 })]],
  ["extra data", [entry({ extra: 8 })]],
  ["a truncated entry", [entry().subarray(0, 20)]],
])("rejects a directory with %s", (_what, entries) => {
  expect(check(...entries)).toBeFalse();
});
