import { describe, expect, test } from "bun:test";
import { existsSync, statSync, symlinkSync } from "node:fs";
import { consistencyOf, newMark, readMark, updateMark, writeMark, type Mark } from "../../src/store/mark.ts";
import { Temp } from "../fixtures/temp.ts";

describe("consistencyOf", () => {
  test.each<[Partial<Mark>, string]>([
    [{}, "unused"],
    [{ lastRun: "powered-off" }, "clean"],
    [{ lastRun: "reset" }, "clean"],
    [{ lastRun: "killed" }, "crash"],
    [{ lastRun: "unknown" }, "crash"],
    [{ restored: "clean" }, "clean"],
    [{ restored: "crash" }, "crash"],
    [{ restored: "unused" }, "unused"],
    // What ran since counts, not what was restored.
    [{ restored: "crash", lastRun: "powered-off" }, "clean"],
    [{ restored: "clean", lastRun: "killed" }, "crash"],
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
    const mark: Mark = { ...newMark(), restored: "clean", replaces: "/tmp/x" };
    writeMark(temp.top, mark);
    updateMark(temp.top, { lastRun: "unknown", replaces: undefined });
    expect(readMark(temp.top)).toEqual({
      vm: 1,
      created: mark.created,
      restored: "clean",
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
