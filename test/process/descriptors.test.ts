import { describe, expect, test } from "bun:test";
import { closeSync, fstatSync, openSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { connectBlocking, sendDescriptor, socketPair } from "../../src/process/descriptors.ts";
import { closesOnExec } from "../../src/process/c-library.ts";
import { receiveFrom, SENDER_FD } from "../../src/process/receive.ts";
import { Temp } from "../fixtures/temp.ts";

const codeOf = (action: () => unknown): string | undefined => {
  try {
    action();
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
  return undefined;
};

describe("connectBlocking", () => {
  test("connects; a read waits for its limit, and no longer", async () => {
    using temp = new Temp();
    const unix = temp.path("socket");
    const { promise, resolve } = Promise.withResolvers<string>();
    using _server = Bun.listen({ unix, socket: { data: (_socket, data) => resolve(data.toString()) } });
    const fd = connectBlocking(unix, 1);
    expect(closesOnExec(fd)).toBe(true);
    writeSync(fd, "hello");
    expect(await promise).toBe("hello");
    expect(codeOf(() => readSync(fd, Buffer.alloc(1)))).toBe("EAGAIN");
    closeSync(fd);
  });

  test("fails with the system's error, and leaves no descriptor open", () => {
    using temp = new Temp();
    const lowest = openSync("/dev/null", "r");
    closeSync(lowest);
    expect(codeOf(() => connectBlocking(temp.path("none"), 1000))).toBe("ENOENT");
    expect(codeOf(() => connectBlocking(temp.write("file", ""), 1000))).toBe("ECONNREFUSED");
    const next = openSync("/dev/null", "r");
    closeSync(next);
    expect(next).toBe(lowest);
  });
});

test("a descriptor that cannot be sent is a system error", () => {
  const [one, other] = socketPair();
  closeSync(other);
  expect(codeOf(() => sendDescriptor(one, Buffer.from("x"), one))).toBe("EPIPE");
  expect(codeOf(() => sendDescriptor(one, Buffer.from("x"), 1_000_000))).toBe("EBADF");
  closeSync(one);
});

describe("receiveFrom", () => {
  test("returns what a program sends", async () => {
    using temp = new Temp();
    const path = temp.write("file", "");
    const module = JSON.stringify(join(import.meta.dir, "../../src/process/descriptors.ts"));
    const script = `const { sendDescriptor } = await import(${module});
      sendDescriptor(${SENDER_FD}, Buffer.from("x"), require("node:fs").openSync(process.argv[1]));`;
    const { fd } = await receiveFrom([process.execPath, "-e", script, path]);
    const own = openSync(path, "r");
    expect(fstatSync(fd!).ino).toBe(fstatSync(own).ino);
    expect(closesOnExec(fd!)).toBe(true);
    for (const each of [fd!, own]) closeSync(each);
  });

  test("says how one ended that sends bytes only, or nothing", async () => {
    for (const send of [`echo x >&${SENDER_FD}`, ":"]) {
      const received = await receiveFrom(["sh", "-c", `${send}; echo broken >&2; exit 3`]);
      expect(received).toMatchObject({ fd: undefined, result: { status: 3, stderr: "broken\n" } });
    }
  });
});
