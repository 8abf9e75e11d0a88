import { afterAll, beforeAll, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, symlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { GLOBAL_OPTIONS } from "../../src/cli/options.ts";
import { binary, guests, Sandbox } from "./harness.ts";
import { playStep, readSteps } from "./readme-session.ts";
import { suite } from "./tools.ts";

suite("the README's sessions", () => {
  let box: Sandbox;
  beforeAll(() => {
    box = new Sandbox();
    mkdirSync(join(box.top, "bin"), { mode: 0o700 });
    symlinkSync(resolve(binary), join(box.top, "bin/vm"));
  });
  afterAll(() => box?.[Symbol.dispose]());

  test.each([
    ["minute", "vm/demo", 8],
    ["tour", "vm/ws10", 8],
  ])("%s: prints what it shows", async (mark, last, least) => {
    copyFileSync((await guests()).installerIso, join(box.home, "install.iso"));
    const env = box.env({ PATH: `${join(box.top, "bin")}:${process.env.PATH}` });
    const steps = readSteps(mark);
    expect(steps.length).toBeGreaterThanOrEqual(least);
    let directory = box.home;
    for (const step of steps) directory = await playStep(step, directory, env);
    expect(directory).toBe(join(box.home, last));
  });
});

test("the help names every option", async () => {
  using box = new Sandbox();
  const { stdout } = await box.ok(["-h"]);
  for (const { long, hidden } of GLOBAL_OPTIONS) if (!hidden) expect(stdout).toContain(`--${long}`);
});
