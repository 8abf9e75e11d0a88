import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { isUnixSocketAlive } from "../../src/process/libc.ts";
import { connectUnix, isListening, socketIn } from "../../src/process/unix-socket.ts";
import { Temp } from "../fixtures/temp.ts";
import { testWith } from "../fixtures/needs.ts";

let temp: Temp;
let socket: string;
beforeEach(() => {
  temp = new Temp();
  socket = temp.path("qmp.sock");
});
afterEach(() => temp[Symbol.dispose]());

describe("isListening", () => {
  test("is true for a server that sends nothing", async () => {
    using _server = Bun.listen({ unix: socket, socket: { data: () => {} } });
    expect(await isListening(socket)).toBe(true);
  });

  test("is false for nothing, a file, a directory, and a dead server's socket", async () => {
    expect(await isListening(socket)).toBe(false);
    expect(await isListening(temp.path("no", "directory"))).toBe(false);
    expect(await isListening(temp.write("file", ""))).toBe(false);
    expect(await isListening(temp.directory("directory"))).toBe(false);
    const script = `require("node:net").createServer().listen(process.argv[1], () => process.kill(process.pid, "SIGKILL"))`;
    Bun.spawnSync([process.execPath, "-e", script, socket]);
    expect(readdirSync(temp.top)).toContain("qmp.sock");
    expect(await isListening(socket)).toBe(false);
  });
});

describe("socketIn returns", () => {
  test.each([
    [`/${"d".repeat(105)}`, "s", `/${"d".repeat(105)}/s`.length <= 107],
    [`/${"d".repeat(99)}`, "qmp.sock", false],
    [`/${"д".repeat(48)}`, "qmp.sock", true],
    [`/${"д".repeat(49)}`, "qmp.sock", false],
  ])("the path below %s, %s, only if it fits a socket address: %p", (directory, name, whole) => {
    expect(socketIn(directory, name)).toBe(whole ? `${directory}/${name}` : name);
  });
});

const late = (): Error => new Error("late");

/** A listener with a backlog of one, which accepts no connection before a line on its stdin. */
function listenWithFullBacklog(): Bun.Subprocess {
  const script = `import os, socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(0)
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
print("full", flush=True)
sys.stdin.readline()
accepted = []
while True: accepted.append(listener.accept())`;
  return Bun.spawn(["python3", "-c", script, socket], { stdin: "pipe", stdout: "pipe" });
}

async function whileFull<T>(use: (child: Bun.Subprocess) => Promise<T>): Promise<T> {
  const child = listenWithFullBacklog();
  try {
    await (child.stdout as ReadableStream).getReader().read();
    return await use(child);
  } finally {
    child.kill();
    await child.exited;
  }
}

describe("connectUnix", () => {
  testWith("python3")("waits for a place in a full backlog", async () => {
    await whileFull(async (child) => {
      // Refused at first, as the backlog is full: without a retry it would fail.
      const connecting = connectUnix(socket, { data: () => {} }, 20_000, late);
      (child.stdin as Bun.FileSink).write("\n");
      await (child.stdin as Bun.FileSink).flush();
      (await connecting).terminate();
    });
  });

  testWith("python3")("fails after its limit if the backlog stays full", async () => {
    await whileFull(async () => {
      await expect(connectUnix(socket, { data: () => {} }, 100, late)).rejects.toThrow("late");
    });
  });

  test("reports a listener that dies before accepting as not listening", async () => {
    const script = `require("node:net").createServer().listen(process.argv[1], () => console.log("up"))`;
    const listener = Bun.spawn([process.execPath, "-e", script, socket], { stdout: "pipe" });
    await listener.stdout.getReader().read();
    listener.kill("SIGSTOP");
    const connecting = connectUnix(socket, { data: () => {} }, 20_000, late);
    listener.kill("SIGKILL");
    while (isUnixSocketAlive(socket)) Bun.sleepSync(1);
    await expect(connecting).rejects.toMatchObject({ code: "ECONNREFUSED" });
  });

  test("without a listener, fails at once", async () => {
    await expect(connectUnix(socket, { data: () => {} }, 60_000, late)).rejects.toMatchObject({
      code: "ENOENT",
    });
  });
});
