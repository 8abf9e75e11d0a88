import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { dependencies } from "../../package.json";
import { buildLicenses } from "../../src/cli/licenses.ts";

const root = join(import.meta.dir, "../..");
const text = buildLicenses("vm", "1.2.3");

test.each([
  "LICENSE",
  ...Object.keys(dependencies).map((name) => `node_modules/${name}/LICENSE`),
  "node_modules/zx/build/3rd-party-licenses",
  "scripts/licenses/bun.txt",
  "scripts/licenses/LGPL-2.0.txt",
  "scripts/licenses/LGPL-2.1.txt",
])("contains %s completely", (file) => {
  expect(text).toContain(readFileSync(join(root, file), "utf8").trim());
});

test.each(Object.entries(dependencies))("names %s %s", (name, version) => {
  expect(text).toContain(`\n${name} ${version}\n`);
});

test("starts with this program's own notice", () => {
  expect(text).toStartWith("vm 1.2.3 is free software");
});
