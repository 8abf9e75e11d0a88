import { describe, expect, test } from "bun:test";
import { truncateSync } from "node:fs";
import { detectNonImage, refuseNonImage } from "../../src/qemu/non-image.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

const bytes = (text: string): Buffer =>
  Buffer.concat([Buffer.from(text, "latin1"), Buffer.alloc(600)]).subarray(0, 512);

describe("not a disk image:", () => {
  test.each([
    ["an empty file", Buffer.alloc(0), "empty"],
    ["a web page", Buffer.from("<!DOCTYPE html>\n<html>"), 'text that starts with "<!DOCTYPE html> <htm"'],
    ["an error in JSON", Buffer.from('{"error": 404}\n'), "text that starts with"],
    ["Cyrillic text", Buffer.from("Не найдено"), "text that starts with"],
    ["an OVA", bytes(`${"app.ovf".padEnd(257, "\0")}ustar`), "an archive (tar, OVA)"],
    ["xz", bytes("\xfd7zXZ\0"), "compressed with xz"],
    ["gzip", bytes("\x1f\x8b\x08"), "compressed with gzip"],
    ["zstd", bytes("\x28\xb5\x2f\xfd"), "compressed with zstd"],
    ["bzip2", bytes("BZh91AY"), "compressed with bzip2"],
    ["lz4", bytes("\x04\x22\x4d\x18"), "compressed with lz4"],
    ["zip", bytes("PK\x03\x04"), "compressed with zip"],
    ["7z", bytes("7z\xbc\xaf\x27\x1c"), "compressed with 7z"],
    ["VMA", bytes("VMA\0"), "a backup of Proxmox VE"],
    ["COWD", bytes("COWD\x01\0\0\0"), "an ESX disk (COWD)"],
    ["Parallels", bytes("WithoutFreeSpace"), "a Parallels disk"],
  ])("%s", (_title, head, what) => {
    expect(detectNonImage(head)?.what).toStartWith(what);
  });
});

describe("possibly one:", () => {
  test.each([
    ["an empty disk", bytes("")],
    ["a boot sector", bytes("\xeb\x63\x90")],
    ["noise", Buffer.from(Array.from({ length: 512 }, (_, index) => (index * 37) & 0xff))],
    ["qcow2", bytes("QFI\xfb\0\0\0\x03")],
    ["a vmdk descriptor", Buffer.from("# Disk DescriptorFile\nversion=1\n")],
  ])("%s", (_title, head) => {
    expect(detectNonImage(head)).toBeUndefined();
  });
});

test.each([
  ["a b.raw.xz", "\xfd7zXZ\0", "decompress it: xz -dc < '@/a b.raw.xz' > '@/a b.raw'"],
  ["disk", "\x1f\x8b\x08", "decompress it: gzip -dc < @/disk > @/disk.img"],
  ["p.hdd", "WithoutFreeSpace", "convert it: qemu-img convert -f parallels -O qcow2 @/p.hdd @/p.hdd.img"],
  ["d.7z", "7z\xbc\xaf\x27\x1c", "extract it, then use the image in it: 7z x @/d.7z"],
])("the hint for %s can be pasted", async (name, magic, hint) => {
  using temp = new Temp();
  const path = temp.write(name, Buffer.from(magic, "latin1"));
  truncateSync(path, 4096);
  const failure = await failureOf(() => refuseNonImage(path, "cannot use the image"));
  expect(failure.exitCode).toBe(74);
  expect(failure.message).toStartWith(`cannot use the image ${path}: it is `);
  expect(failure.hint?.replaceAll(temp.top, "@")).toBe(hint);
});
