import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeSums } from "../../src/services/backup/describe.ts";

let top: string;
let path: string | undefined;
const bins: string[] = [];
beforeEach(() => {
  top = mkdtempSync(join(tmpdir(), "vm-sums-"));
  path = process.env.PATH;
});
afterEach(() => {
  process.env.PATH = path;
  for (const directory of [top, ...bins.splice(0)]) rmSync(directory, { recursive: true, force: true });
});

function fill(...names: string[]): void {
  for (const name of names) writeFileSync(join(top, name), `content of ${name}\n`);
}
const sums = (): string => readFileSync(join(top, "SHA256SUMS"), "utf8");

/** The format of sha256sum itself, which looks at every file. */
function expectGood(...names: string[]): void {
  const { stdout, exitCode } = Bun.spawnSync(["sha256sum", "--check", "--strict", "SHA256SUMS"], {
    cwd: top,
  });
  expect(stdout.toString()).toBe(names.map((name) => `${name}: OK\n`).join(""));
  expect(exitCode).toBe(0);
  const { stdout: own } = Bun.spawnSync(["sha256sum", "--", ...names], { cwd: top });
  expect(sums()).toBe(own.toString());
}

/** PATH with sha256sum, and an openssl that does as the script says. */
function withOpenssl(script?: string): void {
  const bin = mkdtempSync(join(tmpdir(), "vm-sums-bin-"));
  bins.push(bin);
  for (const name of ["sha256sum", "setpriv", "sh"]) {
    const found = Bun.which(name);
    if (found) symlinkSync(found, join(bin, name));
  }
  if (script !== undefined) {
    writeFileSync(join(bin, "openssl"), `#!/bin/sh\n${script}\n`);
    chmodSync(join(bin, "openssl"), 0o755);
  }
  process.env.PATH = bin;
}

test("what is at hand computes them, and the file is sha256sum's own", async () => {
  fill("disk-0.qcow2", "manifest.json", "vm.defaults");
  await writeSums(top);
  process.env.PATH = path;
  expectGood("disk-0.qcow2", "manifest.json", "vm.defaults");
});

test("names that openssl's output could be misread for are sha256sum's", async () => {
  fill("-r", "a b");
  await writeSums(top);
  expectGood("-r", "a b");
});

test.each([
  ["no openssl", undefined],
  ["one that fails", "exit 1"],
  ["one that says something else", "echo hello"],
  ["one that leaves a file out", `echo "${"0".repeat(64)} *b"`],
])("%s", async (_name, script) => {
  fill("a", "b");
  withOpenssl(script);
  await writeSums(top);
  process.env.PATH = path;
  expectGood("a", "b");
});
