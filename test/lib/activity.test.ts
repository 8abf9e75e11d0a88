import { afterAll, afterEach, describe, expect, spyOn, test } from "bun:test";
import * as streams from "../../src/lib/standard-streams.ts";
import { beginChild, beginStep, noteShown, watchActivity } from "../../src/lib/activity.ts";
import { setQuiet } from "../../src/lib/log.ts";

const LIMITS = { firstMs: 20, nextMs: 200, sameMs: 500 };
const written = spyOn(streams, "writeError").mockImplementation(() => true);

/** A clock that only `pass` moves. */
let nowMs = 0;
let tick = (): void => {};

function pass(milliseconds: number): void {
  for (const end = nowMs + milliseconds; nowMs < end; nowMs += 10) tick();
}

/** The lines printed during the work. */
function linesOf(work: () => void): string[] {
  written.mockClear();
  using _now = spyOn(performance, "now").mockImplementation(() => nowMs);
  using _interval = spyOn(globalThis, "setInterval").mockImplementation(((listener: () => void) => {
    tick = listener;
    return { unref() {}, [Symbol.toPrimitive]: () => 0 };
  }) as unknown as typeof setInterval);
  using _activity = watchActivity(LIMITS);
  work();
  return written.mock.calls.map(([line]) => String(line));
}

afterAll(() => written.mockRestore());
afterEach(() => setQuiet(false));

describe("long work", () => {
  test("is reported soon, and repeatedly", () => {
    let done = 0;
    const lines = linesOf(() => {
      using _step = beginStep(() => `verify S${done++}`);
      pass(320);
    });
    expect(lines).toEqual(["verify S0\n", "verify S1\n"]);
  });

  test("whose line reads the same is reported less often", () => {
    const lines = linesOf(() => {
      using _step = beginStep(() => "waiting for the guest's agent");
      pass(20 + 500 + 500 + 400);
    });
    expect(lines).toHaveLength(3);
  });

  test("of several steps is reported on one line, outermost first", () => {
    const lines = linesOf(() => {
      using _outer = beginStep(() => "push S0");
      using _inner = beginStep(() => "compare S0");
      pass(100);
    });
    expect(lines).toEqual(["push S0; compare S0\n"]);
  });

  test("that is only a program is reported by its name", () => {
    const lines = linesOf(() => {
      using _child = beginChild("qemu-img", 12);
      pass(100);
    });
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/^waiting for qemu-img \(pid 12\), \d\.\d s\n$/);
  });

  test("names no program that has only just been started, also late in a command", () => {
    const lines = linesOf(() => {
      pass(500);
      for (let count = 0; count < 30; count++) {
        using _child = beginChild("qemu-img", 12);
        pass(10);
      }
    });
    expect(lines).toEqual([]);
  });

  test("names a long-running program within a step: it may hang", () => {
    const lines = linesOf(() => {
      using _step = beginStep(() => "backup S0");
      using _child = beginChild("cat", 12);
      pass(320);
    });
    expect(lines[0]).toBe("backup S0\n");
    expect(lines[1]).toMatch(/^backup S0; waiting for cat \(pid 12\), /);
  });

  test.each([
    ["there is none", () => pass(100)],
    [
      "it has ended",
      () => {
        beginStep(() => "x")[Symbol.dispose]();
        beginChild("x", 1)[Symbol.dispose]();
        pass(100);
      },
    ],
    [
      "a progress bar shows it",
      () => {
        using _step = beginStep(() => "x");
        noteShown();
        pass(100);
      },
    ],
    [
      "the command is quiet",
      () => {
        setQuiet(true);
        using _step = beginStep(() => "x");
        pass(100);
      },
    ],
  ])("is not reported if %s", (_name, work) => {
    expect(linesOf(work)).toEqual([]);
  });
});
