import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { Subprocess } from "bun";
import * as activity from "../../src/lib/activity.ts";
import { flock, LOCK_EX, LOCK_NB } from "../../src/process/libc.ts";
import { lockVm } from "../../src/store/lock.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

let temp: Temp;
const holders: Subprocess[] = [];
beforeEach(() => {
  temp = new Temp();
});
afterEach(() => {
  for (const holder of holders.splice(0)) holder.kill("SIGKILL");
  temp[Symbol.dispose]();
});

/** Another process that holds the lock. */
async function holdElsewhere(command: string): Promise<Subprocess> {
  const script = join(import.meta.dir, "../fixtures/hold-lock.ts");
  const child = Bun.spawn([process.execPath, script, temp.top, command], { stdout: "pipe" });
  holders.push(child);
  for await (const _said of child.stdout) break;
  return child;
}

/** flock(2) on NFS without its lock service. */
function refuse(): boolean {
  throw Object.assign(new Error("ENOLCK: no locks available, flock"), { errno: -37, code: "ENOLCK" });
}

describe("the lock of a VM", () => {
  test("is held by another process: 75, with its pid", async () => {
    const holder = await holdElsewhere("back up");
    const error = await failureOf(() => lockVm(temp.top, "restore", 50));
    expect(error.exitCode).toBe(75);
    expect(error.message).toStartWith("cannot restore: the VM is locked by another process: ");
    expect(error.message).toEndWith(`back up (pid ${holder.pid})`);
  });

  test("is awaited with a line that says for how long, and who holds it", async () => {
    const holder = await holdElsewhere("back up");
    using begun = spyOn(activity, "beginStep");
    let tries = 0;
    using _lock = await lockVm(temp.top, "restore", 600_000, () => ++tries > 1);
    const line = begun.mock.calls[0]![0]();
    expect(line).toStartWith(`waiting at most 600 s for the lock of ${temp.top}, held by `);
    expect(line).toEndWith(`back up (pid ${holder.pid})`);
    holder.kill("SIGKILL");
    await holder.exited;
    expect(begun.mock.calls[0]![0]()).toEndWith(", held by an unknown process");
  });

  test("is released with a killed process", async () => {
    const holder = await holdElsewhere("back up");
    holder.kill("SIGKILL");
    await holder.exited;
    using lock = await lockVm(temp.top, "restore", 0);
    expect(lock.hostdir).toBe(temp.top);
  });

  test("is waited for", async () => {
    const holder = await holdElsewhere("back up");
    const answers: boolean[] = [];
    using lock = await lockVm(temp.top, "restore", 60_000, (...words) => {
      answers.push(flock(...words));
      // The lock has been found busy.
      if (answers.length === 1) holder.kill("SIGKILL");
      return answers.at(-1)!;
    });
    expect([answers[0], answers.at(-1)]).toEqual([false, true]);
    expect(lock.hostdir).toBe(temp.top);
  });

  test("is held even against this process", async () => {
    using _lock = await lockVm(temp.top, "one");
    const error = await failureOf(() => lockVm(temp.top, "two", 0));
    expect(error.message).toContain(`(pid ${process.pid})`);
  });

  test("is released on disposal, and nothing is left behind", async () => {
    (await lockVm(temp.top, "one"))[Symbol.dispose]();
    using _lock = await lockVm(temp.top, "two", 0);
    expect(readdirSync(temp.top)).toEqual([]);
  });

  test("of another VM is another lock", async () => {
    using _lock = await lockVm(temp.directory("a"), "one");
    using other = await lockVm(temp.directory("b"), "two", 0);
    expect(other.hostdir).toBe(temp.path("b"));
  });

  test("does not leak a descriptor when waiting fails", async () => {
    using _lock = await lockVm(temp.top, "one");
    const before = readdirSync("/proc/self/fd").length;
    await failureOf(() => lockVm(temp.top, "two", 0));
    expect(readdirSync("/proc/self/fd")).toHaveLength(before);
  });

  test("is not inherited by started programs", async () => {
    const lock = await lockVm(temp.top, "one");
    const child = Bun.spawn(["sleep", "60"]);
    try {
      lock[Symbol.dispose]();
      // It has the descriptor until its exec(2).
      using again = await lockVm(temp.top, "two", 60_000);
      expect(again.hostdir).toBe(temp.top);
      expect(child.exitCode).toBeNull();
    } finally {
      child.kill("SIGKILL");
    }
  });

  test("fails if the filesystem cannot lock: 74 with the reason", async () => {
    const error = await failureOf(() => lockVm(temp.top, "back up", 0, refuse));
    expect({ status: error.exitCode, message: error.message }).toEqual({
      status: 74,
      message: `cannot lock ${temp.top}: no locks available`,
    });
    expect(error.hint).toContain("local_lock=flock");
  });

  test("distinguishes another process's lock from a failure of flock(2)", () => {
    expect(() => flock(-1, LOCK_EX | LOCK_NB)).toThrow(/^EBADF: .*, flock$/);
  });

  test("fails if the directory is missing", async () => {
    const error = await failureOf(() => lockVm(temp.path("gone"), "run", 0));
    expect(error.message).toContain(`cannot lock ${temp.path("gone")}`);
  });
});
