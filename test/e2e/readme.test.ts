import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "bun:test";
import { SETTING_NAMES } from "../../src/config/schema.ts";
import { GLOBAL_OPTIONS } from "../../src/cli/options.ts";
import { checkout, Sandbox } from "./harness.ts";

const readme = readFileSync(join(checkout, "README.md"), "utf8");

test.each([...SETTING_NAMES])("the settings table names %s", (name) => {
  expect(readme).toMatch(new RegExp(`\\b${name}\\b`));
});

test("the help names every option", async () => {
  using box = new Sandbox();
  const { stdout } = await box.ok(["-h"]);
  for (const { long, hidden } of GLOBAL_OPTIONS) if (!hidden) expect(stdout).toContain(`--${long}`);
});
