import { afterAll, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import {
  confineInGroup,
  findMissingControllers,
  groupOf,
  readGroupLimits,
  type KernelPlaces,
} from "../../src/process/cgroup.ts";
import { Temp } from "../fixtures/temp.ts";

const temp = new Temp();
afterAll(() => temp[Symbol.dispose]());
let count = 0;

/** Stands for a cgroup2 filesystem whose files are plain ones. @param own the group of this process */
function kernel(
  own = "/user/session",
  controllers = "cpu io memory",
): KernelPlaces & { read: (path: string) => string } {
  const top = `kernel${count++}`;
  temp.write(`${top}/proc/self/cgroup`, `0::${own}\n`);
  temp.write(`${top}/groups/cgroup.controllers`, `${controllers}\n`);
  temp.directory(`${top}/groups${own}`);
  return {
    proc: temp.path(`${top}/proc`),
    groups: temp.path(`${top}/groups`),
    read: (path) => readFileSync(temp.path(`${top}/groups${path}`), "utf8"),
  };
}

const LIMITS = { cpuPercent: 150, memoryBytes: 2 ** 30, ioWeight: 50 };

test("a group gets the limits, then the process", () => {
  const places = kernel();
  const group = confineInGroup(77, "vm-web-77", "", LIMITS, places);
  expect(group).toBe("/user/session/vm-web-77");
  expect(places.read(`${group}/cpu.max`)).toBe("150000 100000");
  expect(places.read(`${group}/memory.max`)).toBe("1073741824");
  expect(places.read(`${group}/io.weight`)).toBe("default 50");
  expect(places.read(`${group}/cgroup.procs`)).toBe("77");
  expect(places.read("/user/session/cgroup.subtree_control")).toBe("+cpu +memory +io");
  expect(readGroupLimits(`${places.groups}${group}`)).toEqual(LIMITS);
});

test("only wanted limits are set, in the slice", () => {
  const places = kernel();
  const group = confineInGroup(7, "vm-a-7", "lab.slice", { cpuPercent: 20 }, places);
  expect(group).toBe("/user/session/lab.slice/vm-a-7");
  expect(existsSync(`${places.groups}${group}/memory.max`)).toBe(false);
  expect(readGroupLimits(`${places.groups}${group}`)).toEqual({ cpuPercent: 20 });
});

test("a group that cannot be made is made further up", () => {
  const places = kernel("/a/b");
  // Neither a directory nor writable: what EBUSY and EACCES are on a real one.
  temp.write(`kernel${count - 1}/groups/a/b/vm-x-5`, "");
  expect(confineInGroup(5, "vm-x-5", "", LIMITS, places)).toBe("/a/vm-x-5");
});

test("says what is missing", () => {
  const places = kernel("/", "cpu pids");
  expect(findMissingControllers(LIMITS, places)).toEqual(["memory", "io"]);
  expect(() => confineInGroup(5, "vm-x-5", "", LIMITS, places)).toThrow("no controller memory, io");
  expect(() => confineInGroup(5, "vm-x-5", "", LIMITS, { ...places, groups: undefined })).toThrow(
    "not mounted",
  );
  temp.write(`kernel${count - 1}/groups/vm-y-5`, "");
  expect(() => confineInGroup(5, "vm-y-5", "", { cpuPercent: 5 }, places)).toThrow(/EEXIST|exists/);
});

test("groups of a qemu that has ended are removed, others stay", () => {
  const places = kernel("/");
  const top = `kernel${count - 1}/groups`;
  temp.directory(`${top}/vm-old-999999999`);
  temp.directory(`${top}/vm-now-${process.pid}`);
  temp.directory(`${top}/other-999999999`);
  confineInGroup(5, "vm-x-5", "", { cpuPercent: 5 }, places);
  const left = ["vm-old-999999999", `vm-now-${process.pid}`, "other-999999999"].filter((name) =>
    existsSync(temp.path(`${top}/${name}`)),
  );
  expect(left).toEqual([`vm-now-${process.pid}`, "other-999999999"]);
});

test.each([
  ["max 100000", "max", "default 100", { ioWeight: 100 }],
  ["50000 100000", "max", "", { cpuPercent: 50 }],
  ["garbage", "garbage", "garbage", {}],
] as const)("reads %p, %p and %p", (cpu, memory, io, limits) => {
  const places = kernel("/");
  const top = `kernel${count - 1}/groups`;
  for (const [name, text] of Object.entries({ "cpu.max": cpu, "memory.max": memory, "io.weight": io }))
    temp.write(`${top}/${name}`, `${text}\n`);
  expect(readGroupLimits(places.groups!)).toEqual(limits);
});

test("the group of a process, and of none", () => {
  expect(groupOf("self", kernel("/x y"))).toBe("/x y");
  expect(groupOf(4, kernel())).toBeUndefined();
});
