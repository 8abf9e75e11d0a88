import { afterAll, afterEach, describe, expect, spyOn, test } from "bun:test";
import * as streams from "../../src/lib/standard-streams.ts";
import { beginChild, beginStep, noteShown, watchActivity } from "../../src/lib/activity.ts";
import { setQuiet } from "../../src/lib/log.ts";

const LIMITS = { firstMs: 20, nextMs: 200 };
const written = spyOn(streams, "writeError").mockImplementation(() => true);

/** The lines printed during the work. */
async function linesOf(work: () => Promise<void>): Promise<string[]> {
  written.mockClear();
  using _activity = watchActivity(LIMITS);
  await work();
  return written.mock.calls.map(([line]) => String(line));
}

afterAll(() => written.mockRestore());
afterEach(() => setQuiet(false));

describe("long work", () => {
  test("is reported soon, and repeatedly", async () => {
    let done = 0;
    const lines = await linesOf(async () => {
      using _step = beginStep(() => `verify S${done++}`);
      await Bun.sleep(320);
    });
    expect(lines).toEqual(["verify S0\n", "verify S1\n"]);
  });

  test("of several steps is reported on one line, outermost first", async () => {
    const lines = await linesOf(async () => {
      using _outer = beginStep(() => "push S0");
      using _inner = beginStep(() => "compare S0");
      await Bun.sleep(100);
    });
    expect(lines).toEqual(["push S0; compare S0\n"]);
  });

  test("that is only a program is reported by its name", async () => {
    const lines = await linesOf(async () => {
      using _child = beginChild("qemu-img", 12);
      await Bun.sleep(100);
    });
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/^waiting for qemu-img \(pid 12\), \d\.\d s\n$/);
  });

  test("names a long-running program within a step: it may hang", async () => {
    const lines = await linesOf(async () => {
      using _step = beginStep(() => "backup S0");
      using _child = beginChild("cat", 12);
      await Bun.sleep(320);
    });
    expect(lines[0]).toBe("backup S0\n");
    expect(lines[1]).toMatch(/^backup S0; waiting for cat \(pid 12\), /);
  });

  test.each([
    ["there is none", async () => Bun.sleep(100)],
    [
      "it has ended",
      async () => {
        beginStep(() => "x")[Symbol.dispose]();
        beginChild("x", 1)[Symbol.dispose]();
        await Bun.sleep(100);
      },
    ],
    [
      "a progress bar shows it",
      async () => {
        using _step = beginStep(() => "x");
        noteShown();
        await Bun.sleep(100);
      },
    ],
    [
      "the command is quiet",
      async () => {
        setQuiet(true);
        using _step = beginStep(() => "x");
        await Bun.sleep(100);
      },
    ],
  ])("is not reported if %s", async (_name, work) => {
    expect(await linesOf(work)).toEqual([]);
  });
});
