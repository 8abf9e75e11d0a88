import { expect, test } from "bun:test";
import { findShapeMismatch, type Shape } from "../../src/qmp/shape.ts";

const POINT = { x: "number", "name?": "string" } as const;

test.each<[unknown, Shape, string | undefined]>([
  ["a", "string", undefined],
  [1, "string", "its value"],
  [undefined, "boolean", "its value"],
  [null, "any", undefined],
  ["new", { known: ["old"] }, undefined],
  [5, { known: ["old"] }, "its value"],
  ["new", { oneOf: ["old"] }, undefined],
  [[], [POINT], undefined],
  [[{ x: 1 }, { x: 2, name: "b", more: true }], [POINT], undefined],
  [[{ x: 1 }, { x: "2" }], [POINT], "[1].x"],
  [[{ x: 1, name: 5 }], [POINT], "[0].name"],
  [{ x: 1 }, [POINT], "its value"],
  [null, POINT, "its value"],
  [[], POINT, "its value"],
  [{ at: { x: null } }, { at: POINT }, "at.x"],
  [{ "at?": 1 }, { "at?": "string" }, undefined],
  [{ y: true }, { either: [POINT, { y: "boolean" }] }, undefined],
  [{ y: 1 }, { either: [POINT, { y: "boolean" }] }, "its value"],
])("%j as %j: %p", (value, shape, mismatch) => {
  expect(findShapeMismatch(value, shape)).toBe(mismatch);
});
