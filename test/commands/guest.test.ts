import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fastClock } from "../fixtures/fast-clock.ts";
import { FakeQemu, HANG, Refusal, type Answer, type Behaviour } from "../fixtures/qemu/fake-qemu.ts";
import { Sandbox, until } from "../fixtures/sandbox.ts";

const base64 = (text: string): string => Buffer.from(text).toString("base64");

/** Agent of a guest in which each program ends as given, after a number of status requests. */
const programs = (end: Record<string, unknown>, asks = 1): Behaviour => {
  let left = asks;
  return {
    agent: {
      "guest-exec": () => ({ pid: 42 }),
      "guest-exec-status": () => (--left > 0 ? { exited: false } : { exited: true, ...end }),
    },
  };
};

/** The agent exits; so does another program with a port. */
const exits: Answer = (_args, vm) => {
  vm.emit("VSERPORT_CHANGE", { id: "another", open: false });
  setTimeout(() => vm.emit("VSERPORT_CHANGE", { id: "channel0-dev", open: false }), 50);
  return HANG;
};

let box: Sandbox;
let qemu: FakeQemu | undefined;
beforeAll(async () => {
  box = new Sandbox();
  await box.ok("create", "G");
});
beforeEach(() => {
  box.stdin = "";
  box.terminal = false;
});
/** Shuts down the guest that a test has started. */
afterEach(async () => {
  qemu?.powerOff();
  await qemu?.ended;
  qemu = undefined;
  await box.vm("stop");
});
afterAll(() => box[Symbol.dispose]());

const running = async (behaviour: Behaviour = {}, ...words: string[]): Promise<FakeQemu> =>
  (qemu = await box.running(behaviour, ...words));

describe("of a VM that is off", () => {
  test.each<[line: string, status: number]>([
    ["console", 66],
    ["exec true", 66],
    ["ssh", 66],
    ["cp a :b", 66],
    ["screenshot", 66],
    ["view", 66],
    ["exec", 64],
    ["cp a", 64],
    ["cp a b", 64],
    ["console --follow", 64],
  ])("%s → %i", async (line, status) => {
    await box.ends(status, line);
  });
});

describe("exec", () => {
  test.each<[title: string, end: Record<string, unknown>, status: number, printed: string]>([
    ["prints the program's output", { exitcode: 0, "out-data": base64("hello\n") }, 0, "hello\n"],
    ["returns its exit status", { exitcode: 3, "err-data": base64("no such\n") }, 3, "no such\n"],
    ["returns no success for a status of 32 bits", { exitcode: 256 }, 1, ""],
    ["returns 128 + N for a signal", { signal: 9 }, 137, ""],
    ["reports truncated output", { exitcode: 0, "out-truncated": true }, 0, "16 MiB"],
    ["an invalid answer", { exitcode: "x" }, 74, "guest agent"],
  ])("%s", async (_title, end, status, printed) => {
    const { requests } = await running(programs(end));
    await box.ends(status, "exec true", printed);
    expect(requests.map(({ execute }) => execute)).toContain("query-chardev");
  });

  test("polls until the program has ended; passes stdin", async () => {
    const asked: any[] = [];
    const { agent } = programs({ exitcode: 0, "out-data": base64("done\n") }, 9);
    await running({ agent: { ...agent, "guest-exec": (args) => (asked.push(args), { pid: 7 }) } });
    box.stdin = "typed in";
    await box.ends(0, "exec sh -c true", "done");
    expect(asked).toEqual([
      { path: "sh", arg: ["-c", "true"], "capture-output": true, "input-data": base64("typed in") },
    ]);
  });

  test.each<[title: string, behaviour: Behaviour, status: number]>([
    ["no agent", {}, 69],
    ["an agent that does not answer", { agent: { "guest-sync-delimited": () => HANG } }, 69],
    [
      "a disabled command",
      {
        agent: {
          "guest-exec": () => {
            throw new Refusal("Command guest-exec has been disabled", "CommandNotFound");
          },
        },
      },
      69,
    ],
    [
      "no such program",
      {
        agent: {
          "guest-exec": () => {
            throw new Refusal("Failed to execute child process: No such file or directory");
          },
        },
      },
      66,
    ],
    ["an invalid pid", { agent: { "guest-exec": () => ({ pid: "x" }) } }, 74],
  ])("%s", async (_title, behaviour, status) => {
    await running(behaviour);
    await box.ends(status, "exec true");
  });

  test.each<[title: string, hanging: string]>([
    ["before it has started the program", "guest-exec"],
    ["while the program runs", "guest-exec-status"],
  ])("an agent that exits %s: 74 at once", async (_title, hanging) => {
    const { agent } = programs({ exitcode: 0 });
    await running({ agent: { ...agent, [hanging]: exits } });
    const start = performance.now();
    await box.ends(74, "exec sleep 9", "exit status of sleep is unknown: the guest agent exited");
    expect(performance.now() - start).toBeLessThan(5000);
  });

  test("a timeout kills the program in the guest (124)", async () => {
    const asked: string[] = [];
    await running({
      agent: {
        "guest-exec": ({ path }) => (asked.push(path), { pid: 5 }),
        "guest-exec-status": () => ({ exited: false }),
      },
    });
    using _clock = fastClock();
    await box.ends(124, "-t 1 exec sleep 99", "sleep");
    expect(asked).toEqual(["sleep", "kill"]);
  });

  test("two at once: neither loses an answer", async () => {
    await running({
      agent: {
        "guest-exec": ({ path }) => ({ pid: Number(path) }),
        "guest-exec-status": ({ pid }) => ({ exited: true, exitcode: pid }),
      },
    });
    // They share stdin.
    box.terminal = true;
    const both = await Promise.all([box.start("exec", "11").done, box.start("exec", "12").done]);
    expect(both.map(({ status }) => status)).toEqual([11, 12]);
  });
});

describe("console", () => {
  test("sends piped input, prints the answer, and ends", async () => {
    const { heard } = await running({ console: "login: " });
    box.stdin = "root\n";
    await box.ends(0, "console", "login: ");
    expect(heard["console.sock"]).toEqual(["root\n"]);
  });

  test("without input, prints until the guest is off", async () => {
    const vm = await running({ console: "booting\n" });
    const console = box.start("console");
    await until("it is connected", () => vm.isTaken("console.sock"));
    vm.powerOff();
    expect(await console.done).toMatchObject({ status: 0, stdout: "booting\n" });
  });

  test("on a terminal, sends each key; Ctrl-] detaches", async () => {
    const { heard } = await running({ console: "login: " });
    box.terminal = true;
    box.stdin = "root\u001d";
    await box.ends(0, "console", "Ctrl-]");
    await until("the guest has read it", () => heard["console.sock"]!.length > 0);
    expect(heard["console.sock"]).toEqual(["root"]);
  });

  test("is busy if another process uses it (75)", async () => {
    await running();
    const socket = await Bun.connect({ unix: join(box.work, "console.sock"), socket: { data: () => {} } });
    await until("it is taken", () => qemu!.isTaken("console.sock"));
    await box.ends(75, "console", "--log --follow");
    socket.end();
  });

  test("--log prints the log without control characters; --follow until the guest is off", async () => {
    const vm = await running({ console: "one\n\u001b]0;title\u0007two\n" });
    const { stdout } = await box.ends(0, "console --log", "one\n", "two\n");
    expect(stdout).not.toContain("\u0007");
    const follow = box.start("console", "--log", "--follow");
    await until("it has printed the log", () => follow.stdout().includes("two\n"));
    writeFileSync(join(box.work, "console.log"), "three\n", { flag: "a" });
    await until("it follows", () => follow.stdout().includes("three\n"));
    vm.powerOff();
    expect(await follow.done).toMatchObject({ status: 0, stdout: expect.stringContaining("three\n") });
    rmSync(join(box.work, "console.log"));
    await box.ends(66, "console --log", "console.log");
  });
});

describe("ssh and cp", () => {
  beforeEach(() => {
    for (const name of ["ssh", "scp"])
      box.program(name, `printf '%s\\n' ${name} "$@"; exit \${SSH_STATUS:-0}`);
    delete box.environment.SSH_STATUS;
  });

  test.each<[line: string, expected: string[]]>([
    ["ssh uptime -p", ["ssh", "127.0.0.1", "uptime", "-p"]],
    ["ssh --user=anna -- -v", ["ssh", "-o", 'User="anna"', "-v"]],
    ["cp -r a :/root/", ["scp", "-r", "--", "a", "127.0.0.1:/root/"]],
    ["cp :/etc/hosts x:y", ["scp", "--", "127.0.0.1:/etc/hosts", "./x:y"]],
  ])("%s", async (line, expected) => {
    await running({}, "--ssh");
    const { stdout } = await box.ends(0, line);
    const words = stdout.trim().split("\n");
    expect(words).toEqual(expect.arrayContaining(expected));
    expect(words.join(" ")).toContain(`UserKnownHostsFile="${join(box.work, "known_hosts")}"`);
    expect(statSync(join(box.work, "known_hosts")).mode & 0o777).toBe(0o600);
  });

  test.each<[status: number, printed: string]>([
    [7, ""],
    [255, "--user"],
  ])("returns ssh's own status %i", async (status, printed) => {
    await running({}, "--ssh");
    writeFileSync(join(box.work, "known_hosts"), "vm key\n");
    box.environment.SSH_STATUS = String(status);
    await box.ends(status, "ssh", printed, status === 255 ? "rm " : "");
  });

  test("returns 128 + N for a signal; 69 without a forward", async () => {
    await running({}, "--ssh");
    box.program("ssh", "kill -TERM $$");
    await box.ends(143, "ssh");
    await box.ok("stop");
    await running();
    await box.ends(69, "ssh", "vm forward add");
  });
});

describe("screenshot", () => {
  test("writes a PNG, with the permissions of the umask", async () => {
    await running();
    const { stdout } = await box.ends(0, "screenshot shot.png", "shot.png");
    expect(stdout.trim()).toBe(box.path("shot.png"));
    expect(readFileSync(box.path("shot.png")).subarray(1, 4).toString()).toBe("PNG");
    await box.ends(0, "screenshot -", "PNG");
    const { stdout: named } = await box.ok("screenshot");
    expect(named).toMatch(/G-\d{8}-\d{6}\.png\n$/);
    expect(existsSync(join(box.work, "screen.ppm"))).toBe(false);
  });

  test.each<[line: string, status: number]>([
    ["screenshot nowhere/shot.png", 66],
    ["screenshot directory", 73],
    ["screenshot --show", 69],
  ])("%s → %i", async (line, status) => {
    await running();
    mkdirSync(box.path("directory"), { recursive: true });
    await box.ends(status, line);
  });

  test("in a terminal that displays images", async () => {
    await running();
    box.terminal = true;
    box.environment.TERM_PROGRAM = "iTerm.app";
    await box.ends(0, "screenshot --show", "\u001b]");
    delete box.environment.TERM_PROGRAM;
    await box.ends(69, "screenshot --show");
  });

  test("without a graphics card (69)", async () => {
    await running({
      answers: {
        screendump: () => {
          throw new Refusal("There is no console to take a screendump from");
        },
      },
    });
    await box.ends(69, "screenshot", "console.log");
  });
});

describe("view", () => {
  test.each<[words: string, printed: string[]]>([["-p 5977", ["remote-viewer", "5977", "ssh -L"]]])(
    "%s: prints how to open a viewer",
    async (words, printed) => {
      box.environment.USER = "anna";
      qemu = await (async () => {
        box.qemu = {};
        await box.ok(...words.split(" "), "run", "-b");
        return box.qemus.at(-1)!;
      })();
      await box.ends(0, "view", ...printed, "anna@");
      await box.ends(0, "status", "5977");
      rmSync(join(box.work, "spice.vv"));
      box.environment.DISPLAY = ":0";
      box.program("remote-viewer", `echo "$@" >${box.top}/viewed`);
      await box.ok("view");
      expect(readFileSync(join(box.top, "viewed"), "utf8").trim()).toBe(join(box.work, "spice.vv"));
      box.program("remote-viewer", "exit 4");
      await box.ends(74, "view", "4");
      delete box.environment.DISPLAY;
    },
  );

  test("without a display (69)", async () => {
    await running();
    await box.ends(69, "view", "screenshot");
  });
});
