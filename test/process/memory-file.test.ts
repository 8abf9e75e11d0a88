import { afterEach, describe, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, statSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { allocateHoles, copySparse, createMemoryFile } from "../../src/process/memory-file.ts";
import { closesOnExec } from "../../src/process/c-library.ts";
import { Temp } from "../fixtures/temp.ts";

const MIB = 1 << 20;

const opened: number[] = [];
const keep = (fd: number): number => (opened.push(fd), fd);
afterEach(() => opened.splice(0).forEach((fd) => closeSync(fd)));

describe("createMemoryFile", () => {
  test("makes a file of holes, which children do not inherit by accident", () => {
    const fd = keep(createMemoryFile("test", 4 * MIB));
    expect(closesOnExec(fd)).toBe(true);
    expect(statSync(`/proc/self/fd/${fd}`)).toMatchObject({ size: 4 * MIB, blocks: 0 });
  });
});

const copy = (from: string, to: string): Promise<number> =>
  copySparse(keep(openSync(from, "r")), keep(openSync(to, "w")));

describe("copySparse", () => {
  test("copies data at the beginning, in the middle and at the end, without the holes between", async () => {
    const memory = keep(createMemoryFile("test", 20 * MIB));
    const places = [0, 10 * MIB + 4096, 20 * MIB - 4096];
    for (const [index, place] of places.entries())
      writeSync(memory, Buffer.alloc(4096, 1 + index), 0, 4096, place);
    using temp = new Temp();
    const target = temp.path("copy");
    expect(await copy(`/proc/self/fd/${memory}`, target)).toBe(3 * 4096);
    const { size, blocks } = statSync(target);
    expect(size).toBe(20 * MIB);
    expect(blocks * 512).toBeLessThan(MIB);
    expect(readFileSync(target).equals(readFileSync(`/proc/self/fd/${memory}`))).toBe(true);
  });

  test("copies more than one piece", async () => {
    using temp = new Temp();
    const from = temp.path("from");
    writeFileSync(from, Buffer.alloc(70 * MIB, "data"));
    truncateSync(from, 71 * MIB);
    await copy(from, temp.path("to"));
    expect(readFileSync(temp.path("to")).equals(readFileSync(from))).toBe(true);
  });

  test.each([0, 5])("copies a file of %d MiB of holes", async (size) => {
    const memory = keep(createMemoryFile("test", size * MIB));
    using temp = new Temp();
    const target = temp.path("copy");
    expect(await copy(`/proc/self/fd/${memory}`, target)).toBe(0);
    expect(statSync(target).size).toBe(size * MIB);
  });

  test("reports a full disk", async () => {
    const memory = keep(createMemoryFile("test", MIB));
    writeSync(memory, "data");
    const full = keep(openSync("/dev/full", "w"));
    await expect(copySparse(keep(openSync(`/proc/self/fd/${memory}`, "r")), full)).rejects.toMatchObject({
      syscall: expect.stringMatching(/ftruncate|sendfile|lseek/),
    });
  });
});

test("allocateHoles: every page has its place, and reads as before; the size stays", () => {
  using temp = new Temp();
  const path = temp.path("ram");
  writeFileSync(path, "data");
  truncateSync(path, 4 * MIB);
  expect(allocateHoles(keep(openSync(path, "r+")))).toBe(true);
  const { size, blocks } = statSync(path);
  expect([size, blocks * 512 >= 4 * MIB]).toEqual([4 * MIB, true]);
  expect(readFileSync(path).subarray(0, 5)).toEqual(Buffer.from("data\0"));
  allocateHoles(keep(openSync(temp.write("empty", ""), "r+")));
});
