import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { closeSync, symlinkSync, truncateSync } from "node:fs";
import {
  openForReading,
  openNamed,
  readNamed,
  readSmall,
  readSmallBytes,
  readTail,
} from "../../src/lib/read-file.ts";
import { Temp } from "../fixtures/temp.ts";

let temp: Temp;
beforeEach(() => {
  temp = new Temp();
  temp.write("file", "one\ntwo\n");
  symlinkSync(temp.path("file"), temp.path("link"));
  symlinkSync("/dev/zero", temp.path("device"));
  temp.directory("directory");
  Bun.spawnSync(["mkfifo", temp.path("pipe")]);
});
afterEach(() => temp[Symbol.dispose]());

const opened = (open: (path: string) => number, name: string): void => closeSync(open(temp.path(name)));

describe("a file of a VM's directory", () => {
  test.each([
    ["link", "a symbolic link"],
    ["device", "a symbolic link"],
    ["directory", "a directory"],
    ["pipe", "a named pipe"],
  ])("that is a %s is refused without waiting (74)", (name, what) => {
    const refusal = `it is ${what}, not a regular file`;
    for (const read of [openForReading, readSmall, readSmallBytes, readTail])
      expect(() => read(temp.path(name))).toThrow(refusal);
  });

  test("is read up to its limit, and from its end", () => {
    expect(readSmall(temp.path("file"))).toBe("one\ntwo\n");
    expect(readSmall(temp.path("none"))).toBeUndefined();
    expect(() => readSmall(temp.path("file"), 7)).toThrow("larger than 7 B");
    expect(readTail(temp.path("file"), 6)).toBe("two\n");
    truncateSync(temp.path("file"), 3 * 2 ** 30);
    expect(() => readSmall(temp.path("file"))).toThrow("larger than 1.0 MiB");
    expect(readTail(temp.path("file"), 100)).toHaveLength(100);
  });
});

describe("a file named by the user", () => {
  test("may be a symlink", () => {
    opened(openNamed, "link");
    expect(readNamed(temp.path("link")).toString()).toBe("one\ntwo\n");
    expect(() => readNamed(temp.path("link"), 3)).toThrow("larger than 3 B");
  });

  test.each([
    ["device", "a device"],
    ["directory", "a directory"],
    ["pipe", "a named pipe"],
  ])("that is a %s is refused without waiting (74)", (name, what) => {
    expect(() => openNamed(temp.path(name))).toThrow(`it is ${what}, not a regular file or block device`);
  });
});
