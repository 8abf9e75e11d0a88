import { describe, expect, test } from "bun:test";
import { expandMacro, macroOf, type MacroValues } from "../../src/machine/macros.ts";

const VALUES: MacroValues = {
  MEDIA: "/media/usb",
  MIRROR: undefined,
  HOSTDIR: "/home/me/vm 1",
  INDIR: "/tmp/w/.in",
  DATADIR: "/tmp/w/.out",
};

test.each([
  ["@MEDIA@", "MEDIA", "/media/usb"],
  ["@MEDIA@/x.img", "MEDIA", "/media/usb/x.img"],
  ["@MEDIA@x", "MEDIA", "/media/usbx"],
  ["@HOSTDIR@/a b", "HOSTDIR", "/home/me/vm 1/a b"],
  ["@INDIR@", "INDIR", "/tmp/w/.in"],
  ["@DATADIR@/@MEDIA@", "DATADIR", "/tmp/w/.out/@MEDIA@"],
  ["@MIRROR@/x", "MIRROR", undefined],
  ["", undefined, ""],
  ["/x/@MEDIA@", undefined, "/x/@MEDIA@"],
  ["@MEDIA", undefined, "@MEDIA"],
  ["@media@", undefined, "@media@"],
  ["@OTHER@/x", undefined, "@OTHER@/x"],
  ["@constructor@", undefined, "@constructor@"],
  [" @MEDIA@", undefined, " @MEDIA@"],
] as const)("%j begins with %j and means %j", (path, name, meaning) => {
  expect(macroOf(path)).toBe(name);
  expect(expandMacro(path, VALUES)).toBe(meaning);
});

describe("a value", () => {
  test.each(["$&", "$1", "/$$x"])("inserts %j literally", (value) => {
    expect(expandMacro("@MEDIA@/y", { ...VALUES, MEDIA: value })).toBe(`${value}/y`);
  });
});
