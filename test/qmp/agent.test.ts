import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import type { Socket } from "bun";
import {
  AgentBusy,
  AgentError,
  AgentExited,
  agentLock,
  AgentTimeout,
  GuestAgent,
} from "../../src/qmp/agent.ts";
import { LineSplitter } from "../../src/qmp/protocol.ts";
import { fastClock } from "../fixtures/fast-clock.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { FakeAgent } from "./fake-agent.ts";

let temp: Temp;
let path: string;
beforeEach(() => {
  temp = new Temp();
  path = temp.path("agent.sock");
});
afterEach(() => temp[Symbol.dispose]());

interface Request {
  execute: string;
  arguments?: Record<string, unknown>;
}

/** An agent that answers a sync like qemu-ga, and other requests as a test defines. */
function fakeAgent(
  answer: (request: Request, socket: Socket) => void,
  greeting: string | ((socket: Socket) => void) = "",
): Disposable {
  const listener = Bun.listen({
    unix: path,
    socket: {
      open: (socket) => void (typeof greeting === "string" ? socket.write(greeting) : greeting(socket)),
      data: (socket, bytes) => {
        const splitter = new LineSplitter("the client", 1 << 20);
        const from = bytes.lastIndexOf(0xff) + 1;
        for (const line of splitter.push(bytes.subarray(from))) {
          const request = JSON.parse(line) as Request;
          if (request.execute !== "guest-sync-delimited") answer(request, socket);
          else socket.write(Buffer.concat([Buffer.of(0xff), reply(request.arguments!.id)]));
        }
      },
    },
  });
  return { [Symbol.dispose]: () => listener.stop(true) };
}

const reply = (value: unknown): Buffer => Buffer.from(`${JSON.stringify({ return: value })}\n`);

/** The answer to an earlier client's sync, and one more of its own. */
const late = (socket: Socket): void => {
  socket.write(Buffer.concat([Buffer.of(0xff), reply(4), Buffer.from('{"return": 4}\n')]));
};

const askSlowly = async (name: string): Promise<unknown> => {
  using agent = await GuestAgent.connect(path, 500);
  await Bun.sleep(600);
  return await agent.execute(name);
};

describe("the guest agent", () => {
  test("answers one command after the other: waiting commands do not time out", async () => {
    using _fake = fakeAgent(({ execute }, socket) => void socket.write(reply(execute)));
    using _clock = fastClock(2);
    expect(await Promise.all(["a", "b", "c"].map(askSlowly))).toEqual(["a", "b", "c"]);
  });

  test("is busy if another command uses it (75), and waiting ends with the command", async () => {
    using _fake = fakeAgent(({ execute }, socket) => void socket.write(reply(execute)));
    {
      using _kept = await GuestAgent.connect(path, 20_000);
      const error = await failureOf(() => GuestAgent.connect(path, 20_000, undefined, 50));
      expect(error).toBeInstanceOf(AgentBusy);
      expect(error.exitCode).toBe(75);
      const over = new AbortController();
      setTimeout(() => over.abort(new AgentExited()), 30);
      const ended = await failureOf(() => GuestAgent.connect(path, 20_000, over.signal, 60_000));
      expect(ended).toBeInstanceOf(AgentExited);
    }
    using _next = await GuestAgent.connect(path, 20_000);
  });

  test("answers after another client's unfinished request", async () => {
    using _fake = fakeAgent(
      ({ execute }, socket) => void socket.write(reply(execute)),
      '{"return": 5}\n{"ret',
    );
    using agent = await GuestAgent.connect(path, 20_000);
    expect(await agent.execute("guest-ping")).toBe("guest-ping");
    expect(await agent.execute("guest-info")).toBe("guest-info");
  });

  test("has not answered an earlier client yet", async () => {
    using _fake = fakeAgent(({ execute }, socket) => void socket.write(reply(execute)), late);
    using agent = await GuestAgent.connect(path, 20_000);
    expect(await agent.execute("guest-ping")).toBe("guest-ping");
  });

  test("has disconnected", async () => {
    const error = await GuestAgent.connect(path, 20_000).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ exitCode: 74 });
  });

  test("sends a big answer, and one in pieces", async () => {
    const big = "x".repeat(100_000);
    using _fake = fakeAgent((_request, socket) => {
      const bytes = reply(big);
      socket.write(bytes.subarray(0, 10));
      socket.flush();
      setTimeout(() => socket.write(bytes.subarray(10)), 20);
    });
    using agent = await GuestAgent.connect(path, 20_000);
    expect(await agent.execute("x")).toBe(big);
  });

  test("returns an error", async () => {
    using _fake = fakeAgent((_request, socket) => {
      socket.write('{"error": {"class": "GenericError", "desc": "Not today"}}\n');
    });
    using agent = await GuestAgent.connect(path, 20_000);
    const error = await agent.execute("guest-exec").catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(AgentError);
    expect(error).toMatchObject({ exitCode: 74, kind: "GenericError", description: "Not today" });
  });

  test.each([
    ["garbage", "no JSON\n", "unexpected data from the guest agent, not a JSON object: no JSON"],
    ["a list", "[1]\n", "unexpected data from the guest agent, not a JSON object: [1]"],
    ["an escape", "\u001b[2J\n", "not a JSON object: ?[2J"],
  ])("answers with %s", async (_title, answer, message) => {
    using _fake = fakeAgent((_request, socket) => void socket.write(answer));
    using agent = await GuestAgent.connect(path, 20_000);
    const error = await agent.execute("x").catch((reason: unknown) => reason);
    expect(error).toMatchObject({ exitCode: 74, message: expect.stringContaining(message) });
  });

  test("returns an error without a reason", async () => {
    using _fake = fakeAgent((_request, socket) => void socket.write('{"error": {"class": 1}}\n'));
    using agent = await GuestAgent.connect(path, 20_000);
    const error = await agent.execute("x").catch((reason: unknown) => reason);
    expect(error).toMatchObject({ exitCode: 74, kind: "GenericError", description: "no reason given" });
  });

  test("sends bytes without a line end: aborted at 64 MiB", async () => {
    const piece = Buffer.alloc(1 << 20, "x");
    let sent = 0;
    const flood = (socket: Socket): void => {
      while (sent < 200 << 20) {
        const written = socket.write(piece);
        if (written > 0) sent += written;
        if (written < piece.length) return void setTimeout(() => flood(socket), 1);
      }
    };
    using _fake = fakeAgent((_request, socket) => flood(socket));
    using agent = await GuestAgent.connect(path, 20_000);
    const error = await agent.execute("x", undefined, 20_000).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ exitCode: 74, message: expect.stringContaining("more than 64 MiB") });
    expect(sent).toBeLessThan(75 << 20);
    // The pump ends with its listener.
    sent = Number.POSITIVE_INFINITY;
  });

  test("does not answer", async () => {
    const listener = Bun.listen({ unix: path, socket: { data: () => {} } });
    const error = await GuestAgent.connect(path, 50).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(AgentTimeout);
    expect(error).toMatchObject({ exitCode: 69 });
    listener.stop(true);
  });

  test("shuts down, or is no longer waited for", async () => {
    using _fake = fakeAgent(({ execute }, socket) => {
      if (execute === "poweroff") socket.end();
    });
    const stop = new AbortController();
    using first = await GuestAgent.connect(path, 20_000);
    const gone = expect(first.execute("poweroff")).rejects.toThrow("connection to the guest agent closed");
    await gone;
    using second = await GuestAgent.connect(path, 20_000, stop.signal);
    const waiting = second.execute("silence");
    stop.abort(new AgentExited());
    await expect(waiting).rejects.toThrow("the guest agent exited");
  });
});

/** Answers with the name of the command, after all events that are there already. */
const slowly = async (command: string): Promise<string> => {
  await new Promise(setImmediate);
  return command;
};

describe("two requests at once:", () => {
  test("each gets its own reply, in their order, on one connection", async () => {
    using fake = new FakeAgent(path, slowly);
    using agent = await GuestAgent.connect(path, 20_000);
    const names = ["freeze", "thaw", "info"];
    expect(await Promise.all(names.map((name) => agent.execute(name)))).toEqual(names);
    expect(fake.requests).toEqual(["guest-sync-delimited", ...names]);
  });

  test("a late reply to the first is not the second's", async () => {
    const over = Promise.withResolvers<void>();
    using _fake = new FakeAgent(path, async (command) => {
      if (command === "freeze") await over.promise;
      return command;
    });
    using agent = await GuestAgent.connect(path, 20_000);
    expect(await failureOf(() => agent.execute("freeze", undefined, 5))).toBeInstanceOf(AgentTimeout);
    over.resolve();
    expect(await agent.execute("thaw")).toBe("thaw");
    expect(await agent.execute("info")).toBe("info");
  });

  test("a second one reaches an agent that did not answer", async () => {
    using fake = new FakeAgent(path, (command) => (command === "freeze" ? undefined : command));
    const agent = await GuestAgent.connect(path, 20_000);
    const frozen = agent.execute("freeze", undefined, 10);
    const thawed = agent.execute("thaw");
    expect(await failureOf(() => frozen)).toBeInstanceOf(AgentTimeout);
    expect(await thawed).toBe("thaw");
    agent[Symbol.dispose]();
    expect(fake.requests.at(-1)).toBe("thaw");
  });

  test("an error does not close the connection", async () => {
    using _fake = fakeAgent(({ execute }, socket) => {
      socket.write(
        execute === "no" ? '{"error": {"class": "GenericError", "desc": "no"}}\n' : reply(execute),
      );
    });
    using agent = await GuestAgent.connect(path, 20_000);
    const [refused, answered] = await Promise.allSettled([agent.execute("no"), agent.execute("yes")]);
    expect(refused.status).toBe("rejected");
    expect(answered).toEqual({ status: "fulfilled", value: "yes" });
  });

  test("each of several processes gets its own reply", async () => {
    const script = `import { GuestAgent } from ${JSON.stringify(join(import.meta.dir, "../../src/qmp/agent.ts"))};
const [path, name] = process.argv.slice(-2);
for (let turn = 0; turn < 15; turn++) {
  using agent = await GuestAgent.connect(path, 20_000);
  const words = [name + turn, name + turn + "again"];
  const got = await Promise.all(words.map((word) => agent.execute(word)));
  if (got.join() !== words.join()) throw new Error(got.join());
  await Bun.sleep(Math.random() * 20);
}
console.log("all answered");`;
    using fake = new FakeAgent(path, async (command) => {
      await Bun.sleep(Math.random() * 3);
      return command;
    });
    const children = ["a", "b", "c"].map((name) =>
      Bun.spawn([process.execPath, "-e", script, path, name], { stdout: "pipe" }),
    );
    const printed = await Promise.all(children.map(({ stdout }) => new Response(stdout).text()));
    expect(printed).toEqual(Array.from({ length: 3 }, () => "all answered\n"));
    expect(fake.requests.filter((name) => name !== "guest-sync-delimited")).toHaveLength(90);
  });

  test("of clients without the program's lock, the second waits for qemu's socket", async () => {
    const begun = Promise.withResolvers<void>();
    const over = Promise.withResolvers<void>();
    using _fake = new FakeAgent(path, async (command) => {
      if (command === "abandoned") {
        begun.resolve();
        await over.promise;
      }
      return command;
    });
    const first = await GuestAgent.connect(path, 20_000);
    rmSync(agentLock(path));
    const second = GuestAgent.connect(path, 20_000);
    expect(await first.execute("first")).toBe("first");
    const abandoned = first.execute("abandoned").catch(() => {});
    await begun.promise;
    first[Symbol.dispose]();
    await abandoned;
    over.resolve();
    using agent = await second;
    expect(await agent.execute("second")).toBe("second");
  });
});
