import { describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { watchDirectory, type WatchLimits } from "../../src/process/watch-directory.ts";
import { Temp } from "../fixtures/temp.ts";

/** The names passed by the next calls, up to one that `last` accepts. */
async function collectNames(
  path: string,
  limits: WatchLimits,
  last: (name: string | undefined) => boolean,
  change: () => void,
): Promise<(string | undefined)[]> {
  const names: (string | undefined)[] = [];
  const done = Promise.withResolvers<void>();
  using _watch = watchDirectory(path, limits, (name) => {
    names.push(name);
    if (last(name)) done.resolve();
  });
  change();
  await done.promise;
  return names;
}

describe("a directory", () => {
  test("that changes: passes the name of the changed file", async () => {
    using temp = new Temp();
    const names = await collectNames(
      temp.top,
      { everyMs: 600_000 },
      (name) => name === "new",
      () => temp.write("new", "x"),
    );
    expect(names).toContain("new");
  });

  test("that does not change: passes no name, at intervals", async () => {
    using temp = new Temp();
    const names = await collectNames(
      temp.top,
      { everyMs: 10, unwatchedMs: 600_000 },
      () => true,
      () => {},
    );
    expect(names).toEqual([undefined]);
  });

  test.each(["back\\slash", "none"])("that cannot be watched, %s: at intervals", async (name) => {
    using temp = new Temp();
    if (name !== "none") temp.directory(name);
    const limits = { everyMs: 600_000, unwatchedMs: 10 };
    expect(
      await collectNames(
        temp.path(name),
        limits,
        () => true,
        () => {},
      ),
    ).toEqual([undefined]);
  });

  test("that is removed meanwhile: at intervals", async () => {
    using temp = new Temp();
    const path = temp.directory("gone");
    const names = await collectNames(
      path,
      { everyMs: 10 },
      (name) => name === undefined,
      () => rmSync(path, { recursive: true }),
    );
    expect(names.at(-1)).toBeUndefined();
  });

  test("after the watch: no calls", async () => {
    using temp = new Temp();
    let calls = 0;
    watchDirectory(temp.top, { everyMs: 1 }, () => calls++)[Symbol.dispose]();
    // A second watch gets an event meanwhile.
    await collectNames(
      temp.top,
      { everyMs: 600_000 },
      (name) => name === "new",
      () => temp.write("new", "x"),
    );
    expect(calls).toBe(0);
  });
});
