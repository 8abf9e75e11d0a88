import { describe, expect, test } from "bun:test";
import { existsSync, statSync, symlinkSync } from "node:fs";
import { consistencyOf, newMark, readMark, updateMark, writeMark, type Mark } from "../../src/store/mark.ts";
import { Temp } from "../fixtures/temp.ts";

describe("consistencyOf", () => {
  test.each<[Partial<Mark>, string]>([
    [{}, "offline"],
    [{ lastRun: "powered-off" }, "offline"],
    [{ lastRun: "reset" }, "offline"],
    [{ lastRun: "killed" }, "crash-consistent"],
    [{ lastRun: "unknown" }, "crash-consistent"],
    [{ restored: "offline" }, "offline"],
    [{ restored: "crash-consistent" }, "crash-consistent"],
    [{ restored: "agent" }, "agent"],
    // What ran since counts, not what was restored.
    [{ restored: "crash-consistent", lastRun: "powered-off" }, "offline"],
    [{ restored: "offline", lastRun: "killed" }, "crash-consistent"],
  ])("%j is %s", (mark, consistency) => {
    expect(consistencyOf({ ...newMark(), ...mark })).toBe(consistency as ReturnType<typeof consistencyOf>);
  });
});

describe("the mark", () => {
  test("is private, and read as written", () => {
    using temp = new Temp();
    const mark: Mark = { ...newMark(), lastRun: "killed", files: ["a"], replaces: "/tmp/x" };
    writeMark(temp.top, mark);
    expect(readMark(temp.top)).toEqual(mark);
    expect(statSync(temp.path(".vm.json")).mode & 0o777).toBe(0o600);
  });

  test("is changed where it is told to, and nowhere else", () => {
    using temp = new Temp();
    const mark: Mark = { ...newMark(), restored: "offline", replaces: "/tmp/x" };
    writeMark(temp.top, mark);
    updateMark(temp.top, { lastRun: "unknown", replaces: undefined });
    expect(readMark(temp.top)).toEqual({
      vm: 1,
      created: mark.created,
      restored: "offline",
      lastRun: "unknown",
    });
  });

  test("is not written through a link", () => {
    using temp = new Temp();
    symlinkSync(temp.path("elsewhere"), temp.path(".vm.json"));
    expect(() => writeMark(temp.top, newMark())).toThrow();
    expect(existsSync(temp.path("elsewhere"))).toBe(false);
  });
});
