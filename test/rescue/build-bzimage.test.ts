import { expect, test } from "bun:test";
import { parseBzImage, UNPACKERS } from "../../src/rescue/build/bzimage.ts";

/** A boot image with two setup sectors, a payload of 100 bytes at 32 bytes into the kernel, a name at 0x400. */
function image(magic: string, change: (bytes: Buffer) => void = () => {}): Buffer {
  const bytes = Buffer.alloc(4096);
  bytes[0x1f1] = 2;
  bytes.write("HdrS", 0x202, "latin1");
  bytes.writeUInt16LE(0x20f, 0x206);
  bytes.writeUInt16LE(0x200, 0x20e);
  bytes.writeUInt16LE(1, 0x236);
  bytes.write("6.1.0-56-amd64 (someone@somewhere) #1\0", 0x400, "latin1");
  bytes.writeUInt32LE(32, 0x248);
  bytes.writeUInt32LE(100, 0x24c);
  bytes.write(magic, 3 * 512 + 32, "latin1");
  change(bytes);
  return bytes;
}

const START = 3 * 512 + 32;

test.each(UNPACKERS.map((unpacker) => [unpacker.program, unpacker] as const))(
  "compressed with %s",
  (program, unpacker) => {
    expect(parseBzImage(image(unpacker.magic))).toEqual({
      version: "6.1.0-56-amd64",
      wide: true,
      offset: START,
      // Part of the gzip trailer is the size.
      length: program === "gzip" ? 100 : 96,
      sizeOffset: START + 96,
      unpacker,
    });
  },
);

test("accepts an unknown compression", () => {
  expect(parseBzImage(image("????"))).toMatchObject({ version: "6.1.0-56-amd64", unpacker: undefined });
});

test("no setup sectors means four", () => {
  expect(parseBzImage(image("", (bytes) => bytes.fill(0, 0x1f1, 0x1f2)))?.offset).toBe(5 * 512 + 32);
});

test("a 32-bit kernel", () => {
  expect(parseBzImage(image("", (bytes) => bytes.fill(0, 0x236, 0x238)))?.wide).toBe(false);
});

test.each<[string, (bytes: Buffer) => Buffer | void]>([
  ["no signature", (bytes) => void bytes.fill(0, 0x202, 0x206)],
  ["an old protocol", (bytes) => void bytes.writeUInt16LE(0x207, 0x206)],
  ["no version", (bytes) => void bytes.fill(0, 0x400, 0x420)],
  ["a truncated file", (bytes) => bytes.subarray(0, 0x240)],
  ["an empty file", () => Buffer.alloc(0)],
])("%s: not a boot image", (_name, change) => {
  const bytes = image("");
  expect(parseBzImage(change(bytes) ?? bytes)).toBeUndefined();
});
