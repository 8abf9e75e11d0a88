import { expect, test } from "bun:test";
import { chooseWindows, placeOnDisk } from "../../src/snapshot/compare-disks.ts";

const M = 2 ** 20;
const G = 2 ** 30;

test("few places of a large disk: compared one by one, aligned, near ones together", () => {
  expect(
    chooseWindows(
      [
        [512 * G + 65_536, 65_536],
        [0, 65_536],
        [10 * M, M],
        [1024 * G - 65_536, 65_536],
      ],
      1024 * G,
    ),
  ).toEqual([
    [0, 12 * M],
    [512 * G, 2 * M],
    [1024 * G - 2 * M, 2 * M],
  ]);
});

test("a place that contains the next, and one that ends with the disk", () => {
  expect(
    chooseWindows(
      [
        [0, 100 * M],
        [4 * M, M],
        [200 * G, M],
      ],
      200 * G + 65_536,
    ),
  ).toEqual([
    [0, 100 * M],
    [200 * G, 65_536],
  ]);
});

test("places beyond the end of the smaller disk do not count", () => {
  expect(chooseWindows([[80 * G, M]], 80 * G)).toEqual([]);
});

test("the whole disk, if it has many places", () => {
  const many = Array.from({ length: 25 }, (_, place): [number, number] => [place * 100 * G, M]);
  expect(chooseWindows(many, 4096 * G)).toBeUndefined();
  expect(chooseWindows(many.slice(0, 24), 4096 * G)).toHaveLength(24);
  expect(chooseWindows([], G)).toEqual([]);
});

const WINDOWS: [number, number][] = [
  [M, 2 * M],
  [G, M],
  [2 * G, 3 * M],
];

test.each<[string, [number, number][], [number, number][]]>([
  ["none", [], []],
  ["in the first window", [[M, M]], [[2 * M, M]]],
  ["in the last window alone", [[4 * M, M]], [[2 * G + M, M]]],
  [
    "over all windows",
    [[M, 4 * M]],
    [
      [2 * M, M],
      [G, M],
      [2 * G, 2 * M],
    ],
  ],
  [
    "several, and up to the very end",
    [
      [0, M],
      [2 * M, M],
      [5 * M, M],
    ],
    [
      [M, M],
      [G, M],
      [2 * G + 2 * M, M],
    ],
  ],
])("areas of the windows are areas of the disk: %s", (_what, areas, expected) => {
  expect(placeOnDisk(WINDOWS, areas)).toEqual(expected);
});
