import { expect, test } from "bun:test";
import { existsSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  allowBackup,
  beginResumed,
  commitSuspended,
  discardSuspended,
  acceptDisks,
  beginLoading,
  endResuming,
  findDiskChanges,
  identifyDisk,
  isUndecided,
  putBack,
  readSuspended,
  writeDescription,
  type SuspendedState,
} from "../../src/store/suspended.ts";
import { isSuspended } from "../../src/store/is-suspended.ts";
import { Temp } from "../fixtures/temp.ts";

/** A WORKDIR of a suspended VM with one disk. */
function suspended(temp: Temp): SuspendedState {
  temp.write("disk-0.img", "disk");
  const directory = temp.directory("new");
  for (const name of ["ram", "devices"]) temp.write(`new/${name}`, name);
  const state: SuspendedState = {
    format: 1,
    since: "2026-01-02T03:04:05.678Z",
    qemu: "7.2.22",
    accel: "tcg",
    processor: "0".repeat(32),
    cd: { path: null, first: false },
    disks: [identifyDisk(temp.top, "disk-0.img")],
  };
  writeDescription(directory, state);
  commitSuspended(temp.top, directory);
  return state;
}

test("a state is read as it was written, until it is discarded", () => {
  using temp = new Temp();
  expect(readSuspended(temp.top)).toBeUndefined();
  const state = suspended(temp);
  expect(readSuspended(temp.top)).toEqual(state);
  discardSuspended(temp.top);
  expect(isSuspended(temp.top)).toBe(false);
});

test.each<[string, (temp: Temp) => void, RegExp]>([
  [
    "a file instead of the directory",
    (temp) => (discardSuspended(temp.top), temp.write(".vm-suspended", "")),
    /not a directory/,
  ],
  ["no description", (temp) => rmSync(temp.path(".vm-suspended/state.json")), /damaged/],
  ["no JSON", (temp) => writeFileSync(temp.path(".vm-suspended/state.json"), "{"), /damaged/],
  [
    "a newer format",
    (temp) => writeFileSync(temp.path(".vm-suspended/state.json"), '{"format":2}'),
    /newer version/,
  ],
  ["no RAM", (temp) => rmSync(temp.path(".vm-suspended/ram")), /ram is not a regular file/],
  ["empty RAM", (temp) => writeFileSync(temp.path(".vm-suspended/ram"), ""), /ram is empty/],
  [
    "a symlink as the devices' state",
    (temp) => (
      rmSync(temp.path(".vm-suspended/devices")),
      symlinkSync("/etc/passwd", temp.path(".vm-suspended/devices"))
    ),
    /devices is not a regular file/,
  ],
])("refuses %s (74)", (_what, damage, message) => {
  using temp = new Temp();
  suspended(temp);
  damage(temp);
  expect(() => readSuspended(temp.top)).toThrow(message);
});

test.each<[string, Partial<Record<keyof SuspendedState, unknown>>]>([
  ["a relative CD", { cd: { path: "cd.iso", first: false } }],
  ["a path with control characters", { cd: { path: "/a\nb", first: false } }],
  ["no CD", { cd: undefined }],
  ["an accelerator of another name", { accel: "xen" }],
  ["a disk without a time", { disks: [{ path: "disk-0.img", bytes: 4, modified: "now" }] }],
  ["a time that is none", { since: "yesterday" }],
])("refuses a description with %s", (_what, change) => {
  using temp = new Temp();
  const state = { ...suspended(temp), ...change };
  writeFileSync(temp.path(".vm-suspended/state.json"), JSON.stringify(state));
  expect(() => readSuspended(temp.top)).toThrow("damaged");
});

test.each<[string, (path: string) => void, string[]]>([
  ["untouched", () => {}, []],
  ["of another time", (path) => utimesSync(path, 1, 1), ["disk-0.img was changed"]],
  ["of another size", (path) => writeFileSync(path, "larger"), ["disk-0.img was changed"]],
  ["removed", (path) => rmSync(path), ["disk-0.img is missing"]],
])("a disk %s", (_what, change, changes) => {
  using temp = new Temp();
  const state = suspended(temp);
  change(temp.path("disk-0.img"));
  expect(findDiskChanges(temp.top, state)).toEqual(changes);
});

test("a backup may change a disk, also if it is killed; what was changed before it stays changed", () => {
  using temp = new Temp();
  const touch = (second: number): void => utimesSync(temp.path("disk-0.img"), second, second);
  suspended(temp);
  {
    using _allowed = allowBackup(temp.top);
    touch(1);
  }
  expect(findDiskChanges(temp.top, readSuspended(temp.top)!)).toEqual([]);
  allowBackup(temp.top);
  touch(2);
  acceptDisks(temp.top);
  expect(findDiskChanges(temp.top, readSuspended(temp.top)!)).toEqual([]);
  touch(3);
  {
    using _allowed = allowBackup(temp.top);
    touch(4);
  }
  expect(findDiskChanges(temp.top, readSuspended(temp.top)!)).toEqual(["disk-0.img was changed"]);
});

test("a resumed state is undecided until the guest runs; then only its RAM is left", () => {
  using temp = new Temp();
  suspended(temp);
  beginResumed(temp.top);
  expect([isSuspended(temp.top), isUndecided(temp.top)]).toEqual([false, true]);
  putBack(temp.top);
  expect([isSuspended(temp.top), isUndecided(temp.top)]).toEqual([true, false]);
  beginResumed(temp.top);
  endResuming(temp.top);
  expect([isSuspended(temp.top), isUndecided(temp.top)]).toEqual([false, false]);
  expect(existsSync(join(temp.top, ".vm-resumed/ram"))).toBe(true);
});

test("a qemu that loads the state may change a disk, also if the command is killed", () => {
  using temp = new Temp();
  const state = suspended(temp);
  beginLoading(temp.top, state);
  utimesSync(temp.path("disk-0.img"), 1, 1);
  expect(findDiskChanges(temp.top, readSuspended(temp.top)!)).toEqual([]);
  acceptDisks(temp.top);
  expect(readSuspended(temp.top)).toEqual({ ...state, disks: [identifyDisk(temp.top, "disk-0.img")] });
  utimesSync(temp.path("disk-0.img"), 2, 2);
  expect(findDiskChanges(temp.top, readSuspended(temp.top)!)).toEqual(["disk-0.img was changed"]);
});
