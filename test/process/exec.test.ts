import { afterEach, describe, expect, test } from "bun:test";
import { closeSync, existsSync, openSync, readFileSync, writeSync } from "node:fs";
import { getPriority } from "node:os";
import { join } from "node:path";
import type { Subprocess } from "bun";
import {
  exec,
  findProgram,
  ProcessError,
  requireProgram,
  start,
  type Finished,
} from "../../src/process/exec.ts";
import { pipe } from "../../src/process/libc.ts";
import { failureOf } from "../fixtures/failure.ts";
import { hasExited } from "../fixtures/has-exited.ts";
import { until } from "../fixtures/sandbox.ts";
import { Temp } from "../fixtures/temp.ts";
import { testWith } from "../fixtures/needs.ts";

const parents: Subprocess[] = [];
afterEach(() => {
  for (const parent of parents.splice(0)) parent.kill("SIGKILL");
});

/** SIGSTOP takes effect only if no SIGKILL is pending (signal(7)). */
async function expectAlive(pid: number): Promise<void> {
  process.kill(pid, "SIGSTOP");
  const state = (): string | undefined =>
    /^State:\s*(\S)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  while (state() !== "T") {
    if (hasExited(pid)) throw new Error(`${pid} has ended`);
    await Bun.sleep(1);
  }
  process.kill(pid, "SIGCONT");
}

async function untilGone(pid: number): Promise<void> {
  for (const deadline = Date.now() + 2000; !hasExited(pid) && Date.now() < deadline;) await Bun.sleep(5);
  const survived = !hasExited(pid);
  if (survived) process.kill(pid, "SIGKILL");
  expect(survived).toBe(false);
}

/** A process that starts others; `lines` yields its output. */
function parentOf(mode: string, PATH = process.env.PATH!) {
  const parent = Bun.spawn([process.execPath, join(import.meta.dir, "../fixtures/child.ts"), mode], {
    env: { ...process.env, PATH },
    stdout: "pipe",
    stderr: "pipe",
  });
  parents.push(parent);
  const reader = parent.stdout.getReader();
  let text = "";
  const line = async (): Promise<string> => {
    while (!text.includes("\n")) {
      const { value, done } = await reader.read();
      if (done) throw new Error("it has ended");
      text += Buffer.from(value).toString();
    }
    const end = text.indexOf("\n");
    const first = text.slice(0, end);
    text = text.slice(end + 1);
    return first;
  };
  return { parent, line };
}

describe("exec returns", () => {
  test("output, status and the argv", async () => {
    expect(await exec(["sh", "-c", "echo out; echo err >&2"])).toEqual({
      argv: ["sh", "-c", "echo out; echo err >&2"],
      stdout: "out\n",
      stderr: "err\n",
      status: 0,
      signal: null,
    });
  });

  test.each([
    ["another status", "exit 3", 3, null],
    ["a signal", "kill -TERM $$", null, "SIGTERM"],
  ])("%s, if that is allowed", async (_title, script, status, signal) => {
    expect(await exec(["sh", "-c", script], { anyStatus: true })).toMatchObject({ status, signal });
  });

  test("large output completely, with its UTF-8 characters", async () => {
    const { stdout } = await exec([
      "sh",
      "-c",
      "i=0; while [ $i -lt 20000 ]; do echo Ёж😀漢; i=$((i+1)); done",
    ]);
    expect(stdout === "Ёж😀漢\n".repeat(20_000)).toBe(true);
  });
});

describe("no shell expands the words", () => {
  test.each(["$HOME", "$(id)", "`id`", "a b", "'", '"', "*", ";", "a\nb", "", "~", "\\", "Ё"])(
    "%j",
    async (word) => {
      expect((await exec(["printf", "<%s>", word, "end"])).stdout).toBe(`<${word}><end>`);
    },
  );

  test("nor the name of a program", async () => {
    using temp = new Temp();
    const path = temp.write("it's a; $(program)", '#!/bin/sh\necho "$0"\n', 0o755);
    expect((await exec([path])).stdout).toBe(`${path}\n`);
  });
});

describe("the environment of a program", () => {
  test("is this process's, in the C locale, with additions", async () => {
    const { stdout } = await exec(["env"], { env: { ADDED: "x y" } });
    expect(stdout).toContain("LC_ALL=C\n");
    expect(stdout).toContain("ADDED=x y\n");
  });

  test("is /, or the given directory", async () => {
    using temp = new Temp();
    expect((await exec(["pwd"])).stdout).toBe("/\n");
    expect((await exec(["pwd"], { cwd: temp.top })).stdout).toBe(`${temp.top}\n`);
  });

  test("has no input unless given", async () => {
    expect((await exec(["cat"])).stdout).toBe("");
    const [read, write] = pipe();
    writeSync(write, "from the pipe");
    closeSync(write);
    expect((await exec(["cat"], { stdin: read })).stdout).toBe("from the pipe");
    closeSync(read);
  });

  test("writes directly to a descriptor", async () => {
    using temp = new Temp();
    const fd = openSync(temp.path("out"), "w");
    expect((await exec(["echo", "bulk"], { stdout: fd })).stdout).toBe("");
    closeSync(fd);
    expect(readFileSync(temp.path("out"), "utf8")).toBe("bulk\n");
  });

  test("leads a process group of its own", async () => {
    const { stdout } = await exec([
      "sh",
      "-c",
      "echo $$; ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat",
    ]);
    const [pid, group] = stdout.trim().split(/\s+/);
    expect(group).toBe(pid!);
  });
});

testWith("ionice")("a program of low priority: of the CPU below this one, and idle for I/O", async () => {
  const [readEnd, writeEnd] = pipe();
  const child = start(["sh", "-c", "read -r go; cut -d ' ' -f 19 /proc/self/stat; ionice -p $$"], {
    stdin: readEnd,
    low: true,
  });
  writeSync(writeEnd, "go\n");
  closeSync(writeEnd);
  closeSync(readEnd);
  const { stdout } = await child.done;
  expect(stdout).toBe(`${Math.min(getPriority() + 10, 19)}\nidle\n`);
});

const finished = (changes: Partial<Finished>): Finished => ({
  argv: ["/usr/bin/pigz", "-d"],
  stdout: "",
  stderr: "",
  status: 1,
  signal: null,
  ...changes,
});

describe("an error", () => {
  test.each<[string, Partial<Finished>, string]>([
    ["a status", {}, "cannot unpack: pigz exited with status 1"],
    ["a signal", { status: null, signal: "SIGKILL" }, "cannot unpack: pigz was killed by SIGKILL"],
    ["its words", { stderr: "pigz: bad\n\n" }, "cannot unpack: pigz exited with status 1:\n  pigz: bad"],
    [
      "the last lines of stderr",
      { stderr: "one\ntwo\nthree\nfour\n" },
      "cannot unpack: pigz exited with status 1:\n  two\n  three\n  four",
    ],
  ])("contains %s", (_title, changes, message) => {
    const error = new ProcessError("cannot unpack", finished(changes), "try another");
    expect(error).toMatchObject({ message, exitCode: 74, hint: "try another" });
  });

  test("is thrown by exec", async () => {
    const error = await failureOf(() => exec(["sh", "-c", "echo no >&2; exit 3"], { what: "cannot do it" }));
    expect(error).toBeInstanceOf(ProcessError);
    expect(error.message).toBe("cannot do it: sh exited with status 3:\n  no");
    expect((error as ProcessError).result.status).toBe(3);
  });

  test("for a missing program: 69", async () => {
    const error = await failureOf(() => exec(["no-such-program"]));
    expect(error.exitCode).toBe(69);
    expect(error.message).toContain("no-such-program is not installed");
    expect((await failureOf(() => requireProgram("no-such-program", "get it"))).hint).toBe("get it");
    expect(findProgram("no-such-program")).toBeUndefined();
    expect(requireProgram("sh")).toEndWith("/sh");
  });

  test.each([
    ["a word that is too long", ["true", "x".repeat(1 << 20)], {}],
    ["a missing directory", ["true"], { cwd: "/nowhere" }],
  ])("for %s is a VmError, too", async (_title, argv, options) => {
    expect((await failureOf(() => exec(argv, options))).exitCode).not.toBe(70);
  });
});

describe("kill", () => {
  test("kills the whole group", async () => {
    using temp = new Temp();
    const child = start(["sh", "-c", `sleep 60 & echo $! >'${temp.path("pid")}'; wait`]);
    while (!existsSync(temp.path("pid")) || readFileSync(temp.path("pid"), "utf8") === "") await Bun.sleep(5);
    const grandchild = Number(readFileSync(temp.path("pid"), "utf8"));
    child.kill("SIGKILL");
    expect(await child.done).toMatchObject({ status: null, signal: "SIGKILL" });
    await untilGone(grandchild);
  });

  test("ignores ended processes", async () => {
    const child = start(["true"]);
    await child.done;
    expect(() => child.kill("SIGKILL")).not.toThrow();
  });
});

describe("if this process is killed by SIGKILL, its child", () => {
  testWith("setpriv")("dies, too (needs util-linux's setpriv)", async () => {
    const { parent, line } = parentOf("default");
    const pid = Number(await line());
    // setpriv has become the program.
    while (!/^[^\0]*sleep\0/.test(readFileSync(`/proc/${pid}/cmdline`, "utf8"))) await Bun.sleep(2);
    parent.kill("SIGKILL");
    await untilGone(pid);
  });

  testWith("setpriv")("dies, too, if setpriv comes too late", async () => {
    using temp = new Temp();
    const late = 'while kill -0 "$PPID" 2>/dev/null; do sleep 0.01; done';
    const after = `touch '${temp.path("late")}'\nexec ${findProgram("setpriv")} "$@"`;
    temp.write("setpriv", `#!/bin/sh\n${late}\n${after}\n`, 0o700);
    const { parent, line } = parentOf("TERM", `${temp.top}:${process.env.PATH}`);
    const pid = Number(await line());
    parent.kill("SIGKILL");
    await parent.exited;
    await until("setpriv starts", () => existsSync(temp.path("late")));
    await untilGone(pid);
  });

  test("keeps running if so requested", async () => {
    const { parent, line } = parentOf("none");
    const pid = Number(await line());
    parent.kill("SIGKILL");
    await parent.exited;
    await expectAlive(pid);
    process.kill(pid, "SIGKILL");
  });
});

describe("a stop signal", () => {
  test.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ] as const)("%s ends what runs, and is the exit status: %d", async (signal, status) => {
    const { parent, line } = parentOf("default");
    const pid = Number(await line());
    parent.kill(signal);
    expect(await line()).toBe(`interrupted by ${signal}`);
    expect(await parent.exited).toBe(status);
    await untilGone(pid);
  });

  test("makes exec throw", async () => {
    const { parent, line } = parentOf("exec");
    await line();
    parent.kill("SIGTERM");
    expect(await line()).toBe("interrupted by SIGTERM");
    expect(await parent.exited).toBe(143);
  });

  test("ends the group", async () => {
    const { parent, line } = parentOf("group");
    await line();
    const { value } = await parent.stderr.getReader().read();
    const grandchild = Number(Buffer.from(value!).toString());
    parent.kill("SIGINT");
    expect(await parent.exited).toBe(130);
    await untilGone(grandchild);
  });

  test("spares programs that their owner ends", async () => {
    const { parent, line } = parentOf("keep");
    const pid = Number(await line());
    parent.kill("SIGINT");
    await Bun.sleep(50);
    expect(hasExited(pid)).toBe(false);
    process.kill(pid, "SIGKILL");
    expect(await parent.exited).toBe(130);
  });

  test("goes to a handler, and interrupts nothing then", async () => {
    const { parent, line } = parentOf("taker");
    expect(await line()).toBe("ready");
    parent.kill("SIGTERM");
    expect(await line()).toBe("took SIGTERM");
    expect(await line()).toBe("not interrupted");
    expect(await parent.exited).toBe(0);
  });
});
