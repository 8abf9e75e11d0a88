import { expect, test } from "bun:test";
import { inflateSync } from "node:zlib";
import { pngOfPpm } from "../../src/lib/png.ts";

const ppm = (head: string, ...bytes: number[]): Buffer =>
  Buffer.concat([Buffer.from(head, "latin1"), Buffer.from(bytes)]);

test("a picture of two rows, each after its filter byte", () => {
  const png = pngOfPpm(ppm("P6\n2 2\n255\n", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12));
  expect(png.subarray(1, 4).toString()).toBe("PNG");
  expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([2, 2]);
  const at = png.indexOf("IDAT");
  const pixels = inflateSync(png.subarray(at + 4, at + 4 + png.readUInt32BE(at - 4)));
  expect([...pixels]).toEqual([0, 1, 2, 3, 4, 5, 6, 0, 7, 8, 9, 10, 11, 12]);
});

test.each(["", "P5\n1 1\n255\n", "P6\n1 1\n65535\n", "\x89PNG"])("rejects %j", (head) => {
  expect(() => pngOfPpm(ppm(head, 0, 0, 0))).toThrow("no PPM");
});
