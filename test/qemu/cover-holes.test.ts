import { describe, expect, test } from "bun:test";
import { truncateSync, writeFileSync } from "node:fs";
import type { ReadImage } from "../../src/machine/types.ts";
import { coverHoles, findHoles } from "../../src/qemu/cover-holes.ts";
import { createImage } from "../../src/qemu/new-image.ts";
import type { ByteRange } from "../../src/qemu/zero-image.ts";
import { Temp } from "../fixtures/temp.ts";

const K = 1024;
const MIB = K * K;
const GIB = K * MIB;
const CLUSTER = 128 * K;

test.each<[string, ByteRange[], number, ByteRange[]]>([
  ["nothing held", [], GIB, [[0, GIB]]],
  ["everything held", [[0, GIB]], GIB, []],
  [
    "a byte holds its cluster",
    [[CLUSTER, 1]],
    3 * CLUSTER,
    [
      [0, CLUSTER],
      [2 * CLUSTER, CLUSTER],
    ],
  ],
  [
    "the last byte of one and the first of the next",
    [[CLUSTER - 1, 2]],
    3 * CLUSTER,
    [[2 * CLUSTER, CLUSTER]],
  ],
  [
    "in any order, one inside another",
    [
      [4 * CLUSTER, CLUSTER],
      [0, 3 * CLUSTER],
      [CLUSTER, 1],
    ],
    6 * CLUSTER,
    [
      [3 * CLUSTER, CLUSTER],
      [5 * CLUSTER, CLUSTER],
    ],
  ],
  ["a disk that ends in a cluster", [[0, 1]], CLUSTER + 512, [[CLUSTER, CLUSTER]]],
  [
    "held beyond the end of a smaller overlay",
    [
      [0, CLUSTER],
      [9 * CLUSTER, CLUSTER],
    ],
    2 * CLUSTER,
    [[CLUSTER, CLUSTER]],
  ],
  ["no disk", [], 0, []],
])("holes: %s", (_what, held, virtualBytes, holes) => {
  expect(findHoles(held, virtualBytes, CLUSTER)).toEqual(holes);
});

interface MapEntry {
  start: number;
  length: number;
  depth: number;
  zero: boolean;
}

async function tool(...words: string[]): Promise<string> {
  const child = Bun.spawn(words, { stdout: "pipe", stderr: "pipe" });
  const [out, errors] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  if ((await child.exited) !== 0) throw new Error(`${words.join(" ")}: ${errors}`);
  return out;
}
const write = (path: string, ...commands: string[]): Promise<string> =>
  tool("qemu-io", "-f", "qcow2", ...commands.flatMap((one) => ["-c", one]), path);

/** What qemu finds in the overlay itself, and what below it. */
async function mapOf(path: string): Promise<{ own: MapEntry[]; below: MapEntry[] }> {
  const found = JSON.parse(await tool("qemu-img", "map", "--output=json", "-f", "qcow2", path)) as MapEntry[];
  return { own: found.filter(({ depth }) => depth === 0), below: found.filter(({ depth }) => depth > 0) };
}

/** Three layers, each with data and zeroes of its own, of clusters of three kinds. */
async function chain(temp: Temp, sizeBytes: number): Promise<ReadImage> {
  const paths = ["root.qcow2", "middle.qcow2", "top.qcow2"].map((name) => temp.path(name));
  const [root, middle, top] = paths as [string, string, string];
  await tool("qemu-img", "create", "-q", "-f", "qcow2", root, String(sizeBytes));
  await write(root, "write -q -P 1 0 4k", "write -q -P 2 3G 100k", "write -q -c -P 3 700M 64k");
  await createImage(middle, { sizeBytes, backing: root, subclusters: true });
  await write(middle, "write -q -P 4 5G 4k", "write -q -z 0 2k", "write -q -P 5 1G 512");
  await createImage(top, { sizeBytes, backing: middle });
  await write(top, "write -q -z -u 4k 64k", "write -q -P 6 2G 1M", `write -q -P 7 ${sizeBytes - 512} 512`);
  return paths.reduce<ReadImage | undefined>((base, path) => ({ format: "qcow2", path, base }), undefined)!;
}

describe("an overlay", () => {
  test("gets zero clusters where no layer holds anything, and each layer's data stays", async () => {
    using temp = new Temp();
    // It ends in a cluster, and in a table.
    const sizeBytes = 6 * GIB + 3 * MIB + 512;
    const image = await chain(temp, sizeBytes);
    const path = temp.path("overlay.qcow2");
    await createImage(path, { sizeBytes, backing: image.path, subclusters: true });
    coverHoles(path, image, sizeBytes, () => false);
    await tool("qemu-img", "check", "-q", "-f", "qcow2", path);
    expect(await tool("qemu-img", "compare", path, image.path)).toContain("identical");
    const { own, below } = await mapOf(path);
    expect(own.every(({ zero }) => zero)).toBe(true);
    // All but a few clusters: 12 are held, some of them together.
    const left = below.reduce((sum, { length }) => sum + length, 0);
    expect(left).toBeLessThanOrEqual(2 * MIB);
    expect(left).toBeGreaterThanOrEqual(MIB + 8 * 512);
    // The guest writes to it, and it is still sound.
    await write(
      path,
      "write -q -P 9 4G 5k",
      "write -q -P 9 2G 5k",
      "discard -q 5G 1M",
      "write -q -P 9 6G 3M",
    );
    await tool("qemu-img", "check", "-q", "-f", "qcow2", path);
    await write(path, "read -q -P 9 4G 5k", "read -q -P 0 4097M 1M", "read -q -P 6 2097160K 64k");
  });

  test("tables that are not read in time count as full", async () => {
    using temp = new Temp();
    const image = await chain(temp, 8 * GIB);
    const path = temp.path("overlay.qcow2");
    await createImage(path, { sizeBytes: 8 * GIB, backing: image.path, subclusters: true });
    coverHoles(path, image, 8 * GIB, () => true);
    await tool("qemu-img", "check", "-q", "-f", "qcow2", path);
    const { own } = await mapOf(path);
    // 4 GiB has nothing in any layer; a table of the middle layer is of 1 GiB, of the others 512 MiB.
    expect(own.map(({ start, length }) => [start / GIB, length / GIB])).toEqual([
      [2.5, 0.5],
      [3.5, 1.5],
      [6, 1.5],
    ]);
  });

  test.each<[string, (root: string) => void]>([
    ["is cut off", (root) => truncateSync(root, 70_000)],
    ["is no image", (root) => writeFileSync(root, "no image")],
  ])("is left as it is if an image below it %s", async (_what, damage) => {
    using temp = new Temp();
    const root = temp.path("root.qcow2");
    await createImage(root, { sizeBytes: GIB });
    await write(root, "write -q 0 1M");
    const path = temp.path("overlay.qcow2");
    await createImage(path, { sizeBytes: GIB, backing: root, subclusters: true });
    const before = await Bun.file(path).bytes();
    damage(root);
    coverHoles(path, { format: "qcow2", path: root }, GIB, () => false);
    expect(await Bun.file(path).bytes()).toEqual(before);
  });
});
