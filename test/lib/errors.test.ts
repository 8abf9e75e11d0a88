import { describe, expect, test } from "bun:test";
import { EXIT, hasErrno, isNoSpace, reasonOf, SignalError, VmError } from "../../src/lib/errors.ts";

const errno = (code: string): Error => Object.assign(new Error(`${code}: no luck, open '/x'`), { code });

test("exit statuses are those of sysexits.h and timeout(1)", () => {
  expect(EXIT).toEqual({
    ok: 0,
    other: 1,
    usage: 64,
    noInput: 66,
    unavailable: 69,
    internal: 70,
    cannotCreate: 73,
    io: 74,
    busy: 75,
    config: 78,
    timeout: 124,
  });
});

test("an error has a message, a hint and a cause", () => {
  const cause = new Error("inner");
  expect(new VmError("busy", "cannot: held", { hint: "wait", cause })).toMatchObject({
    message: "cannot: held",
    hint: "wait",
    exitCode: 75,
    cause,
  });
  expect("cause" in new VmError("io", "x")).toBe(false);
});

test.each([
  ["SIGINT", 2, 130],
  ["SIGTERM", 15, 143],
  ["SIGHUP", 1, 129],
])("%s (%d) is exit %d", (name, number, status) => {
  expect(new SignalError(name, number).exitCode).toBe(status);
});

describe("hasErrno", () => {
  test("checks the code", () => {
    expect(hasErrno(errno("ENOENT"), "EACCES", "ENOENT")).toBe(true);
    expect(hasErrno(errno("ENOENT"), "EACCES")).toBe(false);
  });
  test.each<[string, unknown]>([
    ["undefined", undefined],
    ["null", null],
    ["a text", "ENOENT"],
    ["an error without a code", new Error("ENOENT")],
    ["something else with a code", { code: "ENOENT" }],
  ])("%s has none", (_title, value) => {
    expect(hasErrno(value, "ENOENT")).toBe(false);
  });
});

test.each(["ENOSPC", "EDQUOT", "EFBIG"])("%s means no space", (code) => {
  expect(isNoSpace(errno(code))).toBe(true);
  expect(isNoSpace(errno("EIO"))).toBe(false);
});

test.each<[string, unknown, string]>([
  ["a system call", errno("EACCES"), "no luck"],
  ["an error without a code", new Error("other: words"), "other: words"],
  ["no error", "text", "text"],
])("reasonOf: %s", (_title, error, reason) => {
  expect(reasonOf(error)).toBe(reason);
});
