import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { KILL_ONLY, TERMINATE_STEPS, type TerminateStep } from "../../src/qemu/end.ts";
import { readLastLines } from "../../src/qemu/last-lines.ts";
import { QemuRefusal, startQemu, type QemuOptions } from "../../src/qemu/session.ts";
import { QmpClient } from "../../src/qmp/client.ts";
import type { QmpEvent } from "../../src/qmp/events.ts";
import { failureOf } from "../fixtures/failure.ts";
import { hasExited } from "../fixtures/has-exited.ts";
import { Temp } from "../fixtures/temp.ts";

/** Takes 5 s, in parallel with the other tests. */
const interrupted = new Temp();
const interruption = Bun.spawn([process.execPath, join(import.meta.dir, "interrupted.ts"), interrupted.top], {
  stdout: "pipe",
});

let temp: Temp;
beforeEach(() => void (temp = new Temp()));
afterEach(() => temp[Symbol.dispose]());

const start = (behaviour: string, options: Partial<QemuOptions> = {}) =>
  startQemu({
    jail: undefined,
    argv: [process.execPath, join(import.meta.dir, "stubborn-qemu.ts"), behaviour],
    directory: temp.top,
    monitor: temp.path("qmp.sock"),
    logPath: temp.path("qemu.log"),
    ...options,
  });

/** The steps, with shorter limits. */
const SHORT_LIMITS: readonly TerminateStep[] = TERMINATE_STEPS.map((step) => ({
  ...step,
  limitMs: step.by === "SIGKILL" ? 10_000 : 100,
  answerMs: 100,
}));

/** For one that answers `quit` and keeps running. */
const IDLE: readonly TerminateStep[] = TERMINATE_STEPS.map((step) => ({
  ...step,
  limitMs: step.by === "quit" ? 100 : 10_000,
}));

/** For one that does not answer, and needs its time to exit. */
const SHORT_REPLY: readonly TerminateStep[] = TERMINATE_STEPS.map((step) => ({ ...step, answerMs: 100 }));

describe("startQemu", () => {
  test("waits for the greeting; log and sockets are private", async () => {
    const qemu = await start("orderly");
    expect(hasExited(qemu.pid)).toBe(false);
    expect(qemu.qmp.version).toBe("7.2.22");
    expect(statSync(temp.path("qmp.sock")).mode & 0o777).toBe(0o600);
    expect(statSync(temp.path("qemu.log")).mode & 0o777).toBe(0o600);
    expect(readLastLines(temp.path("qemu.log"))).toBe("this is a qemu that orderly");
    await qemu.end(KILL_ONLY);
  });

  test("exit before the greeting: QemuRefusal (74) with its last lines and the script", async () => {
    const error = await failureOf(() => start("refuses", { script: "/a b/run.sh" }));
    expect(error).toBeInstanceOf(QemuRefusal);
    expect(error.exitCode).toBe(74);
    expect(error.message).toBe("qemu did not start (status 1):\n  this is a qemu that refuses");
    expect(error.hint).toBe("run the command by hand: '/a b/run.sh'");
  });

  test("killed before the greeting: 74, and no refusal", async () => {
    const error = await failureOf(() => start("dies"));
    expect(error).not.toBeInstanceOf(QemuRefusal);
    expect(error.message).toContain("qemu did not start (killed by SIGKILL)");
  });

  test("kills a qemu that does not listen within its limit: 74", async () => {
    const error = await failureOf(() => start("hangs", { startLimitMs: 500 }));
    expect(error).not.toBeInstanceOf(QemuRefusal);
    expect(error.exitCode).toBe(74);
    expect(error.message).toContain("qemu did not start (no QMP greeting within 0.5 s)");
  });

  test("writes no log over a file or through a symlink", async () => {
    symlinkSync("elsewhere", temp.path("qemu.log"));
    await expect(start("orderly")).rejects.toMatchObject({ code: "EEXIST" });
  });
});

describe("a qemu is terminated", () => {
  test.each<[string, string, readonly TerminateStep[] | undefined, object]>([
    ["orderly", "by quit", undefined, { status: 0, shutdown: { reason: "host-qmp-quit", guest: false } }],
    ["deaf", "by SIGTERM", SHORT_REPLY, { status: 0, shutdown: { reason: "host-signal", guest: false } }],
    ["idle", "by SIGTERM", IDLE, { status: 0, shutdown: { reason: "host-signal", guest: false } }],
    ["stubborn", "by SIGKILL", SHORT_LIMITS, { status: null, signal: "SIGKILL", shutdown: undefined }],
    ["orderly", "by SIGKILL alone", KILL_ONLY, { signal: "SIGKILL", shutdown: undefined }],
  ])("that is %s: %s", async (behaviour, _how, steps, end) => {
    const qemu = await start(behaviour);
    expect(await qemu.end(steps)).toMatchObject(end);
    expect(await qemu.ended).toMatchObject(end);
    expect(hasExited(qemu.pid)).toBe(true);
  });

  test("once: a second call waits for the same", async () => {
    const qemu = await start("orderly");
    expect(await Promise.all([qemu.end(), qemu.end(KILL_ONLY)])).toMatchObject([
      { status: 0 },
      { status: 0 },
    ]);
    expect(await qemu.end()).toMatchObject({ status: 0 });
  });

  test("that cannot be: 74 with its pid, after the last step", async () => {
    const qemu = await start("stubborn");
    const error = await failureOf(() => qemu.end([{ by: "SIGTERM", limitMs: 50 }]));
    expect(error.exitCode).toBe(74);
    expect(error.message).toBe(`cannot kill qemu (pid ${qemu.pid}): it still runs after SIGKILL`);
    expect(error.hint).toContain(`ps -o pid,user,stat,wchan:20 -p ${qemu.pid}`);
    process.kill(qemu.pid, "SIGKILL");
    expect(await qemu.ended).toMatchObject({ signal: "SIGKILL" });
  });
});

describe("a qemu that exits", () => {
  test.each([
    ["riscv64", { reason: "guest-shutdown", guest: true }],
    ["x86_64", undefined],
  ] as const)("without an event, %s: %j", async (arch, shutdown) => {
    const qemu = await start("eventless", { arch });
    qemu.qmp.execute("cont").catch(() => {});
    expect(await qemu.ended).toEqual({ status: 0, signal: null, panicked: false, shutdown });
  });

  test("delivers its events first", async () => {
    const events: QmpEvent[] = [];
    const qemu = await start("orderly", { onEvent: (event) => events.push(event) });
    process.kill(qemu.pid, "SIGTERM");
    await qemu.ended;
    expect(events).toEqual([{ event: "SHUTDOWN", data: { guest: false, reason: "host-signal" } }]);
  });

  test("after release: it keeps running", async () => {
    const qemu = await start("orderly", { detached: true });
    await qemu.release();
    // It still answers.
    const client = await QmpClient.connect(temp.path("qmp.sock"));
    expect(await client.execute("cont")).toEqual({});
    client.close();
    expect(hasExited(qemu.pid)).toBe(false);
    process.kill(qemu.pid, "SIGKILL");
    await qemu.ended;
  });
});

test.each([
  ["nothing", undefined, ""],
  ["four lines", "1\n2\n3\n4\n5\n", "2\n  3\n  4\n  5"],
])("readLastLines of a log with %s", (_what, text, words) => {
  if (text !== undefined) temp.write("log", text);
  expect(readLastLines(temp.path("log"))).toBe(words);
});

test("a stop signal ends the waiting for a qemu that hangs: at start, for a reply, for its exit", async () => {
  using _interrupted = interrupted;
  expect(await new Response(interruption.stdout).text()).toBe(
    "starting 143\ncommand 143\nending done\nlate 143\n",
  );
});
