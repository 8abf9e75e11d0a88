import { expect, spyOn, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import * as libc from "../../src/process/libc.ts";
import { isTerminal } from "../../src/process/terminal.ts";

test.each(["/dev/null", "/dev/zero", "/etc/passwd"])("%s is no terminal, without the C library", (path) => {
  using isatty = spyOn(libc, "isatty");
  const fd = openSync(path, "r");
  expect(isTerminal(fd)).toBe(false);
  closeSync(fd);
  expect(isatty).not.toHaveBeenCalled();
});

test("other devices are left to the C library", () => {
  using isatty = spyOn(libc, "isatty").mockReturnValue(true);
  const fd = openSync("/dev/ptmx", "r");
  expect(isTerminal(fd)).toBe(true);
  closeSync(fd);
  expect(isatty).toHaveBeenCalledWith(fd);
});
