import { expect, test } from "bun:test";
import { parseRescueRequest } from "../../src/job/rescue.ts";
import { failureOf } from "../fixtures/failure.ts";

test("rescue list", () => {
  expect(parseRescueRequest("list", {})).toEqual({ action: "list" });
});

test("rescue build, with arguments", () => {
  expect(parseRescueRequest("build", { name: "mine", kernel: "k", modules: "m", compress: "zstd" })).toEqual({
    action: "build",
    iso: undefined,
    recovery: undefined,
    append: [],
    name: "mine",
    kernel: "k",
    modules: "m",
    root: undefined,
    compress: "zstd",
  });
});

test("rescue build, of a CD with kernel arguments and files", () => {
  expect(parseRescueRequest("build", { iso: "a.iso", recovery: "dir", append: "quiet a=b" })).toMatchObject({
    iso: "a.iso",
    recovery: "dir",
    append: ["quiet", "a=b"],
  });
});

test.each<[string, Record<string, string>]>([
  ["build", { recovery: "dir" }],
  ["build", { append: "quiet" }],
  ["build", { iso: "x.iso", append: "a;b" }],
  ["build", { iso: "x.iso", append: "autorun=x" }],
  ["build", { iso: "x.iso", recovery: "" }],
  ["make", {}],
  ["list", { iso: "x.iso" }],
  ["build", { iso: "" }],
  ["build", { iso: "x.iso", kernel: "k" }],
  ["build", { iso: "x.iso", compress: "none" }],
  ["build", { compress: "rar" }],
  ["build", { name: "../x" }],
  ["build", { name: ".x" }],
])("rejects %s %j (64)", async (action, args) => {
  expect((await failureOf(() => parseRescueRequest(action, args))).exitCode).toBe(64);
});
