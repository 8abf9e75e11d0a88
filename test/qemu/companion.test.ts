import { describe, expect, test } from "bun:test";
import { closeSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../../src/lib/errors.ts";
import { receiveDescriptor, sendDescriptor, socketPair } from "../../src/process/descriptors.ts";
import { pipe } from "../../src/process/libc.ts";
import { COMPANION_FD, startCompanion } from "../../src/qemu/companion.ts";
import { fastClock } from "../fixtures/fast-clock.ts";
import { hasExited } from "../fixtures/has-exited.ts";
import { Temp } from "../fixtures/temp.ts";

async function untilGone(pid: number): Promise<void> {
  while (!hasExited(pid)) await Bun.sleep(5);
}

const shell = (script: string): string[] => ["sh", "-c", script];
const ECHO = shell(`cat <&${COMPANION_FD} >&${COMPANION_FD}`);

describe("startCompanion", () => {
  test("starts a program with one end of a socket, which exits when the other is closed", async () => {
    using temp = new Temp();
    const companion = await startCompanion({ argv: ECHO, cwd: temp.top, logPath: temp.path("log") });
    expect(writeSync(companion.fd, "hello")).toBe(5);
    const answer = Buffer.alloc(5);
    expect(readSync(companion.fd, answer)).toBe(5);
    expect(answer.toString()).toBe("hello");
    closeSync(companion.fd);
    await untilGone(companion.pid);
  });

  test("a companion whose starter is killed exits, however it was killed", async () => {
    using temp = new Temp();
    const module = join(import.meta.dir, "../../src/qemu/companion.ts");
    const code = `const { startCompanion } = await import(${JSON.stringify(module)});
      const { pid } = await startCompanion({ argv: ${JSON.stringify(ECHO)}, cwd: "/", logPath: ${JSON.stringify(temp.path("log"))} });
      console.log(pid); process.kill(process.pid, "SIGKILL");`;
    const starter = Bun.spawn([process.execPath, "-e", code], { stdout: "pipe", stderr: "inherit" });
    await untilGone(Number(await new Response(starter.stdout).text()));
  });

  test("waits until it is ready; names what it said if it exits before (74)", async () => {
    using temp = new Temp();
    let asked = 0;
    const waited = await startCompanion({
      argv: ECHO,
      cwd: temp.top,
      logPath: temp.path("log"),
      isReady: () => ++asked > 3,
    });
    await waited.end();
    const failing = startCompanion({
      argv: shell("echo no device >&2; exit 3"),
      cwd: temp.top,
      logPath: temp.path("log"),
      isReady: () => false,
    });
    const error: unknown = await failing.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(VmError);
    expect((error as VmError).message).toMatch(/^cannot start sh: it exited with status 3:\n {2}no device$/);
  });

  test("end kills one that stays", async () => {
    using temp = new Temp();
    const argv = shell("trap '' TERM; while :; do sleep 1; done");
    const companion = await startCompanion({ argv, cwd: temp.top, logPath: temp.path("log") });
    using _clock = fastClock();
    await companion.end();
    expect(hasExited(companion.pid)).toBe(true);
  });
});

test("a descriptor is sent over a socket; without one there is none to receive", () => {
  const [one, other] = socketPair();
  const [read, write] = pipe();
  sendDescriptor(one, Buffer.from("x"), write);
  const received = receiveDescriptor(other)!;
  expect(received).toBeNumber();
  expect(received).not.toBe(write);
  writeSync(received, "through");
  const bytes = Buffer.alloc(7);
  expect(readSync(read, bytes)).toBe(7);
  expect(bytes.toString()).toBe("through");
  writeSync(one, "y");
  expect(receiveDescriptor(other)).toBeUndefined();
  for (const fd of [one, other, read, write, received]) closeSync(fd);
});
