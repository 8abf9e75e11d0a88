import { expect, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import {
  findTruncation,
  hasPlatformKey,
  identifyVariables,
  listVariables,
  readVariables,
} from "../../src/qemu/uefi-variables.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { testIf } from "../fixtures/needs.ts";

/** The header of a firmware volume of that length. */
function volume(length: number): Buffer {
  const head = Buffer.alloc(44);
  head.writeBigUInt64LE(BigInt(length), 32);
  head.write("_FVH", 40);
  return head;
}

test.each([
  ["whole", volume(540672), 540672, undefined],
  ["longer than the volume, as on aarch64", volume(786432), 64 << 20, undefined],
  ["one byte short", volume(540672), 540671, "truncated"],
  ["half", volume(131072), 65536, "truncated"],
  ["empty", Buffer.alloc(0), 0, "empty"],
  ["a few bytes", Buffer.alloc(10), 10, "truncated"],
  ["empty flash", Buffer.alloc(44), 540672, undefined],
])("%s", (_title, head, bytes, expected) => {
  const found = findTruncation(head, bytes);
  if (expected === undefined) expect(found).toBeUndefined();
  else expect(found).toContain(expected);
});

/** A qcow2 header. @param backingAt offset of the backing file's name */
function qcow2(virtualBytes: bigint, backingAt = 0n): Buffer {
  const head = Buffer.alloc(104);
  head.write("QFI\xfb", "latin1");
  head.writeUInt32BE(3, 4);
  head.writeBigUInt64BE(backingAt, 8);
  head.writeBigUInt64BE(virtualBytes, 24);
  return head;
}

test.each([
  ["raw: the file's size", volume(131072), { format: "raw", bytes: 44 }],
  ["qcow2: the virtual size", qcow2(540672n), { format: "qcow2", bytes: 540672 }],
] as const)("reads the variables' format and size: %s", (_title, content, expected) => {
  using temp = new Temp();
  const path = temp.write("efivars.bin", "");
  writeFileSync(path, content);
  expect(readVariables(path)).toEqual(expected);
});

test("refuses variables that refer to an external backing file (74)", async () => {
  using temp = new Temp();
  const path = temp.write("efivars.bin", "");
  writeFileSync(path, qcow2(540672n, 200n));
  expect((await failureOf(() => readVariables(path))).exitCode).toBe(74);
});

const STORE_BYTES = 1024;

/** A flash image with a store of authenticated variables. */
function flash(
  ...variables: { name: string; state?: number; dataBytes?: number; nameBytes?: number }[]
): Buffer {
  const image = Buffer.alloc(72 + STORE_BYTES, 0xff);
  volume(image.length).copy(image);
  image.writeUInt16LE(72, 48);
  Buffer.from("782cf3aa7b949a43a1802e144ec37792", "hex").copy(image, 72);
  image.writeUInt32LE(STORE_BYTES, 72 + 16);
  let at = 72 + 28;
  for (const { name, state = 0x3f, dataBytes = 5, nameBytes = (name.length + 1) * 2 } of variables) {
    image.writeUInt16LE(0x55aa, at);
    image[at + 2] = state;
    image.writeUInt32LE(nameBytes, at + 36);
    image.writeUInt32LE(dataBytes, at + 40);
    image.write(`${name}\0`, at + 60, "utf16le");
    at = Math.ceil((at + 60 + (name.length + 1) * 2 + dataBytes) / 4) * 4;
  }
  return image;
}

test.each<[string, Buffer, string[]]>([
  ["none", flash(), []],
  ["two, aligned", flash({ name: "Boot0000" }, { name: "PK", dataBytes: 9 }), ["Boot0000", "PK"]],
  ["a deleted one", flash({ name: "PK", state: 0x3c }, { name: "db" }), ["db"]],
  ["one in deletion", flash({ name: "PK", state: 0x3e }), ["PK"]],
  ["data beyond the store", flash({ name: "a", dataBytes: 0xfffffffe }), ["a"]],
  [
    "a name beyond the file",
    flash({ name: "PK", nameBytes: 0xffffffff }),
    [expect.stringMatching(/^PK./) as never],
  ],
  ["another kind of store", Buffer.alloc(4096), []],
  ["a truncated header", Buffer.alloc(10), []],
  ["a store beyond the file", Buffer.concat([flash({ name: "PK" })]).fill(0xff, 48, 50), []],
])("lists the variables: %s", (_title, image, names) => {
  expect(listVariables(image)).toEqual(names);
});

test.each<[title: string, other: Buffer, same: boolean]>([
  ["the same", flash({ name: "Boot0000" }, { name: "PK" }), true],
  ["in another order", flash({ name: "PK" }, { name: "Boot0000" }), true],
  ["beside a deleted one", flash({ name: "old", state: 0x3c }, { name: "Boot0000" }, { name: "PK" }), true],
  ["and the counter of boots", flash({ name: "Boot0000" }, { name: "MTC" }, { name: "PK" }), true],
  ["without one", flash({ name: "Boot0000" }), false],
  ["with another one", flash({ name: "Boot0000" }, { name: "PK" }, { name: "db" }), false],
  ["with other data", flash({ name: "Boot0000" }, { name: "PK", dataBytes: 9 }), false],
])("identifies variables: %s", (_title, other, same) => {
  const text = identifyVariables(flash({ name: "Boot0000" }, { name: "PK" }));
  expect(identifyVariables(other) === text).toBe(same);
});

test("another kind of store is not identified", () => {
  expect(identifyVariables(Buffer.alloc(4096))).toBeUndefined();
});

const ENROLLED = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";
testIf(existsSync(ENROLLED), ENROLLED)("finds the platform key of Debian's enrolled template", () => {
  expect(hasPlatformKey(ENROLLED)).toBe(true);
  expect(hasPlatformKey("/usr/share/OVMF/OVMF_VARS_4M.fd")).toBe(false);
});
