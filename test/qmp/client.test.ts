import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { closeSync, openSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import type { Socket } from "bun";
import { isListening, MAX_SOCKET_PATH_BYTES } from "../../src/process/unix-socket.ts";
import { findChardev } from "../../src/qmp/chardev.ts";
import { QmpClient } from "../../src/qmp/client.ts";
import { QmpDisconnect, QmpError, QmpUnexpectedReply, QmpTimeout } from "../../src/qmp/errors.ts";
import type { QmpEvent } from "../../src/qmp/events.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { FakeQmp, type Request } from "./fake-server.ts";

let temp: Temp;
let socket: string;
beforeEach(() => {
  temp = new Temp();
  socket = temp.path("qmp.sock");
});
afterEach(() => temp[Symbol.dispose]());

/** A promise that must settle soon, as what hangs here hangs the program. */
const soon = <T>(promise: Promise<T>): Promise<T> =>
  Promise.race([
    promise,
    Bun.sleep(20_000).then(() => {
      throw new Error("it hangs");
    }),
  ]);

const descriptors = (): number => readdirSync("/proc/self/fd").length;

/** `SHUTDOWN`, as sent by qemu. */
const SHUTDOWN: QmpEvent = { event: "SHUTDOWN", data: { guest: true, reason: "guest-shutdown" } };

describe("a connection", () => {
  test("starts with the greeting and qmp_capabilities", async () => {
    using server = new FakeQmp(socket);
    const client = await QmpClient.connect(socket);
    expect(server.requests).toEqual([{ execute: "qmp_capabilities", id: 1 }]);
    expect(client.version).toBe("7.2.22");
    client.close();
  });

  test("gives each command its own answer, in any order", async () => {
    const held: number[] = [];
    using server = new FakeQmp(socket, ({ execute, id }, self) => {
      if (execute === "qmp_capabilities") return { return: {} };
      held.push(id);
      if (held.length === 3)
        for (const later of held.toReversed()) self.send({ return: `to ${later}`, id: later });
      return undefined;
    });
    const client = await QmpClient.connect(socket);
    const answers = await Promise.all(
      ["a", "b", "c"].map((command) => client.executeUntyped(command, { x: command })),
    );
    expect(answers).toEqual(server.requests.slice(1).map(({ id }) => `to ${id}`));
    expect(server.requests[2]).toMatchObject({ execute: "b", arguments: { x: "b" } });
    client.close();
  });

  test("transmits large commands and answers", async () => {
    using _server = new FakeQmp(socket, (request) => ({ return: request.arguments ?? {} }));
    const client = await QmpClient.connect(socket);
    const args = { text: "Ёж😀".repeat(200_000) };
    expect(await client.executeUntyped("echo", args)).toEqual(args);
    client.close();
  });

  test("delivers events, also between a command and its answer", async () => {
    using _server = new FakeQmp(socket, ({ execute, id }, self) => {
      if (execute !== "cont") return { return: {} };
      self.send(`${JSON.stringify({ event: "RESUME" })}\n${JSON.stringify({ return: "done", id })}\n`);
      return undefined;
    });
    const client = await QmpClient.connect(socket);
    const heard: QmpEvent[] = [];
    client.onEvent((event) => heard.push(event));
    expect(await client.execute("cont")).toBe("done");
    expect(heard).toEqual([{ event: "RESUME", data: {} }]);
    client.close();
  });

  test("keeps an event that arrives with the answer to qmp_capabilities", async () => {
    using _server = new FakeQmp(
      socket,
      ({ id }) => `${JSON.stringify({ return: {}, id })}\n${JSON.stringify(SHUTDOWN)}\n`,
    );
    const client = await QmpClient.connect(socket);
    const heard: QmpEvent[] = [];
    const received = Promise.withResolvers<void>();
    client.onEvent((event) => {
      heard.push(event);
      received.resolve();
    });
    await soon(received.promise);
    expect(heard).toEqual([SHUTDOWN]);
    client.close();
  });

  test("ignores answers without a request", async () => {
    using server = new FakeQmp(socket);
    const client = await QmpClient.connect(socket);
    server.send({ return: {}, id: 99 });
    server.send({ error: { class: "GenericError", desc: "JSON parse error" } });
    expect(await soon(client.executeUntyped("x"))).toEqual({});
    client.close();
  });
});

describe("an error", () => {
  test("contains the command and qemu's reason", async () => {
    using _server = new FakeQmp(socket, ({ execute }) =>
      execute === "qmp_capabilities"
        ? { return: {} }
        : { error: { class: "CommandNotFound", desc: "The command x has not been found" } },
    );
    const client = await QmpClient.connect(socket);
    const error = await failureOf(() => client.executeUntyped("x"));
    expect(error).toBeInstanceOf(QmpError);
    expect(error.message).toBe("qemu refused x: The command x has not been found");
    expect((error as QmpError).reply.class).toBe("CommandNotFound");
    client.close();
  });

  test("of the negotiation closes the connection", async () => {
    using _server = new FakeQmp(socket, () => ({ error: { class: "GenericError", desc: "not now" } }));
    const error = await failureOf(() => soon(QmpClient.connect(socket)));
    expect(error.message).toContain("not now");
  });

  test.each([
    ["garbage", "this is no QMP\n"],
    ["null", "null\n"],
    ["a greeting without a version", '{"QMP": {}}\n'],
  ])("of the peer, %s, closes it too", async (_title, greeting) => {
    using _server = new FakeQmp(socket, undefined, greeting);
    const error = await failureOf(() => soon(QmpClient.connect(socket, 500)));
    expect([74, 75]).toContain(error.exitCode);
  });
});

describe("a socket", () => {
  test("used by another client sends no greeting: busy (75)", async () => {
    using _server = Bun.listen({ unix: socket, socket: { data: () => {} } });
    const error = await failureOf(() => QmpClient.connect(socket, 50));
    expect(error.exitCode).toBe(75);
    expect(error.message).toContain(socket);
  });

  test("that does not exist, or has no listener, is a system error", async () => {
    await expect(QmpClient.connect(socket)).rejects.toMatchObject({ code: "ENOENT" });
    new FakeQmp(socket).die();
    writeFileSync(temp.path("file"), "");
    await expect(QmpClient.connect(temp.path("file"))).rejects.toMatchObject({ code: "ECONNREFUSED" });
  });

  test("that is a symlink is refused", async () => {
    using _server = new FakeQmp(socket);
    symlinkSync(socket, temp.path("link.sock"));
    expect(await isListening(temp.path("link.sock"))).toBe(false);
    await expect(QmpClient.connect(temp.path("link.sock"))).rejects.toMatchObject({ code: "ECONNREFUSED" });
    expect(await isListening(socket)).toBe(true);
  });

  test("whose peer sends no line end is closed at 64 MiB (74)", async () => {
    const piece = Buffer.alloc(1 << 20, "x");
    let sent = 0;
    const flood = (peer: Socket): void => {
      while (sent < 200 << 20) {
        const written = peer.write(piece);
        if (written > 0) sent += written;
        if (written < piece.length) return;
      }
    };
    using _server = Bun.listen({ unix: socket, socket: { data: () => {}, open: flood, drain: flood } });
    const error = await failureOf(() => QmpClient.connect(socket, 20_000));
    expect(error).toMatchObject({ exitCode: 74 });
    expect(error.message).toContain("a line of more than 64 MiB");
    expect(sent).toBeLessThan(70 << 20);
  });

  test.each([MAX_SOCKET_PATH_BYTES, MAX_SOCKET_PATH_BYTES + 1, 200, 300])(
    "with a path of %d bytes is reached, and no descriptor leaks",
    async (length) => {
      // Created by its name in the directory, like qemu does.
      const rest = length - temp.top.length - "/dd//qmp.sock".length;
      const directory = temp.directory(
        `dd/${"d".repeat(Math.ceil(rest / 2))}${rest > 255 ? "/" : "d"}${"d".repeat(Math.floor(rest / 2) - 1)}`,
      );
      const long = `${directory}/qmp.sock`;
      expect(long).toHaveLength(length);
      const fd = openSync(directory, "r");
      using _server = new FakeQmp(`/proc/self/fd/${fd}/qmp.sock`);
      closeSync(fd);
      const before = descriptors();
      const client = await QmpClient.connect(long);
      expect(await client.execute("cont")).toEqual({});
      expect(await isListening(long)).toBe(true);
      client.close();
      await client.closed;
      await Bun.sleep(10);
      // The server's side of the connections may still be open.
      expect(descriptors()).toBeLessThanOrEqual(before + 2);
    },
  );
});

describe("when qemu exits", () => {
  test("during a command, that fails and the connection is closed", async () => {
    using _server = new FakeQmp(socket, ({ execute }, self) => {
      if (execute === "qmp_capabilities") return { return: {} };
      self.die();
      return undefined;
    });
    const client = await QmpClient.connect(socket);
    const error = await failureOf(() => soon(client.execute("stop")));
    expect(error).toBeInstanceOf(QmpDisconnect);
    expect(error.exitCode).toBe(74);
    await soon(client.closed);
  });

  test("before its greeting, connecting fails at once", async () => {
    using _server = Bun.listen({
      unix: socket,
      socket: { open: (peer) => void peer.end(), data: () => {} },
    });
    expect((await failureOf(() => soon(QmpClient.connect(socket)))).exitCode).toBe(74);
  });

  test("a later command fails at once", async () => {
    using server = new FakeQmp(socket);
    const client = await QmpClient.connect(socket);
    server.die();
    await soon(client.closed);
    expect(await failureOf(() => soon(client.execute("stop")))).toBeInstanceOf(QmpDisconnect);
  });

  test("by close(), waiting commands fail", async () => {
    using _server = new FakeQmp(socket, ({ execute }) =>
      execute === "qmp_capabilities" ? { return: {} } : undefined,
    );
    const client = await QmpClient.connect(socket);
    const waiting = failureOf(() => soon(client.execute("stop")));
    client.close();
    expect((await waiting).exitCode).toBe(74);
    await soon(client.closed);
  });
});

const silentTo =
  (...silent: string[]) =>
  ({ execute }: Request): object | undefined =>
    silent.includes(execute) ? undefined : { return: { running: true, status: "running" } };

describe("a missing reply", () => {
  test("closes the connection (75): waiting and later commands fail, too", async () => {
    using server = new FakeQmp(socket, silentTo("stop", "cont"));
    const client = await QmpClient.connect(socket, 20_000, 50);
    const waiting = [client.execute("stop"), client.execute("cont")].map((reply) => failureOf(() => reply));
    for (const error of await soon(Promise.all(waiting))) {
      expect(error).toBeInstanceOf(QmpTimeout);
      expect(error.exitCode).toBe(75);
      expect(error.message).toBe("no reply from qemu to stop within 0.05 s");
      expect(error.hint).toContain("stop --force");
    }
    await soon(client.closed);
    expect(await failureOf(() => client.execute("query-status"))).toBeInstanceOf(QmpTimeout);
    expect(server.requests.map(({ execute }) => execute)).not.toContain("query-status");
  });
});

describe("a reply without a required member is an error (74):", () => {
  test.each<[unknown, string]>([
    [{}, "running"],
    [{ running: "yes", status: "running" }, "running"],
    [{ running: true }, "status"],
    [null, "its value"],
  ])("%j", async (value, place) => {
    using _server = new FakeQmp(socket, ({ execute }) => ({
      return: execute === "query-status" ? value : {},
    }));
    const client = await QmpClient.connect(socket);
    const error = await failureOf(() => client.execute("query-status"));
    expect(error).toBeInstanceOf(QmpUnexpectedReply);
    expect(error.message).toBe(
      `unexpected reply from qemu to query-status: ${place} is missing or of another type`,
    );
    client.close();
  });
});

test("executeBatch sends all commands at once, and returns their replies in order", async () => {
  using server = new FakeQmp(socket, ({ execute }) =>
    execute === "cont" ? { error: { class: "GenericError", desc: "no" } } : { return: execute },
  );
  const client = await QmpClient.connect(socket);
  const replies = await Promise.allSettled(
    client.executeBatch([["stop"], ["screendump", { filename: "x" }], ["cont"]]),
  );
  expect(replies.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled", "rejected"]);
  expect(server.requests.slice(1)).toEqual([
    { execute: "stop", id: 2 },
    { execute: "screendump", arguments: { filename: "x" }, id: 3 },
    { execute: "cont", id: 4 },
  ]);
  client.close();
});

describe("findChardev", () => {
  test.each([
    ["disconnected:unix:/w/console.sock,server=on", { connected: false, guestOpen: true }],
    ["unix:/w/console.sock,server=on", { connected: true, guestOpen: true }],
    ["unix:console.sock,server=on", { connected: true, guestOpen: true }],
    ["unix:/console.sock.d/other.sock,server=on", undefined],
  ])("%s", async (filename, line) => {
    using _server = new FakeQmp(socket, ({ execute }) => ({
      return: execute === "query-chardev" ? [{ label: "x", filename, "frontend-open": true }] : {},
    }));
    const client = await QmpClient.connect(socket);
    expect(await findChardev(client, "console.sock")).toEqual(line);
    client.close();
  });
});
