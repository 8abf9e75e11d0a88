import { describe, expect, spyOn, test } from "bun:test";
import { closeSync, openSync, readFileSync, statSync } from "node:fs";
import { closesOnExec, ffi } from "../../src/process/c-library.ts";
import {
  findIoUringProblem,
  flock,
  isatty,
  isRangeLocked,
  libc,
  limitResources,
  LOCK_EX,
  LOCK_NB,
  makePipe,
  pipe,
  setInterface,
} from "../../src/process/libc.ts";
import { Temp } from "../fixtures/temp.ts";

test("limits of a process", async () => {
  const child = Bun.spawn(["sleep", "60"]);
  limitResources(child.pid, { core: 0, nproc: 4000, msgqueue: 0 });
  const limits = readFileSync(`/proc/${child.pid}/limits`, "utf8").replaceAll(/ +/g, " ");
  for (const line of ["core file size 0 0 bytes", "processes 4000 4000 processes", "msgqueue size 0 0 bytes"])
    expect(limits).toContain(`Max ${line}`);
  child.kill();
  await child.exited;
});

test("a named pipe is for its owner; what is there already is not replaced", () => {
  using temp = new Temp();
  makePipe(temp.path("канал"));
  const stats = statSync(temp.path("канал"));
  expect(stats.isFIFO()).toBe(true);
  expect(stats.mode & 0o777).toBe(0o600);
  expect(() => makePipe(temp.path("канал"))).toThrow("EEXIST: file already exists, mkfifo");
});

test.each([
  ["Asia/Tokyo", "1970,1,1,9,0,1"],
  ["America/New_York", "1969,12,31,19,0,1"],
  ["<+0330>-3:30", "1970,1,1,3,30,1"],
])("the time in the zone %s", (TZ, parts) => {
  const code = `console.log(String((await import("${import.meta.dir}/../../src/process/libc.ts")).localTime(new Date(1999))))`;
  const { stdout } = Bun.spawnSync([process.execPath, "-e", code], { env: { ...process.env, TZ } });
  expect(stdout.toString()).toBe(`${parts}\n`);
});

test("what is no tun device becomes no interface", () => {
  const fd = openSync("/dev/null", "r+");
  expect(() => setInterface(fd, "vm%d")).toThrow("ENOTTY");
  closeSync(fd);
});

test("a lock of another description is seen; what is no descriptor is an error", () => {
  using temp = new Temp();
  const path = temp.write("file", "content");
  const [one, other] = [openSync(path, "r+"), openSync(path, "r+")];
  expect(flock(one, LOCK_EX | LOCK_NB)).toBe(true);
  expect(flock(other, LOCK_EX | LOCK_NB)).toBe(false);
  expect(isRangeLocked(other, 0, 4)).toBe(false);
  for (const fd of [one, other]) closeSync(fd);
  expect(() => flock(-1, LOCK_EX | LOCK_NB)).toThrow("EBADF");
});

test("a pipe closes on exec, and is no terminal", () => {
  for (const fd of pipe()) {
    expect(closesOnExec(fd)).toBe(true);
    expect(isatty(fd)).toBe(false);
    closeSync(fd);
  }
});

describe("findIoUringProblem", () => {
  test.each([
    [38, "the kernel has no io_uring"],
    [1, "the kernel forbids io_uring (kernel.io_uring_disabled, or a seccomp filter)"],
    [13, "the kernel forbids io_uring (kernel.io_uring_disabled, or a seccomp filter)"],
    [24, "io_uring_setup failed: EMFILE"],
    [4000, "io_uring_setup failed: E4000"],
  ])("errno %d: %s", (errno, problem) => {
    const number = new Int32Array([errno]);
    using _call = spyOn(libc(), "syscall").mockReturnValue(-1n as never);
    using _errno = spyOn(libc(), "__errno_location").mockReturnValue(ffi().ptr(number));
    expect(findIoUringProblem()).toBe(problem);
  });

  test("a descriptor means that there is none; it is closed", () => {
    const fd = openSync("/dev/null", "r");
    using _call = spyOn(libc(), "syscall").mockReturnValue(BigInt(fd) as never);
    expect(findIoUringProblem()).toBeUndefined();
    expect(() => closeSync(fd)).toThrow("EBADF");
  });
});
