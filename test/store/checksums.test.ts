import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeSums } from "../../src/snapshot/make/describe.ts";
import { compareSums, parseSums, computeSum } from "../../src/store/checksums.ts";

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
  for (const name of names) {
    writeFileSync(join(top, name), `content of ${name}\n`);
    // Larger ones are read by programs.
    truncateSync(join(top, name), 3 << 20);
  }
}
const readList = (): string => readFileSync(join(top, "SHA256SUMS"), "utf8");

/** The format of sha256sum itself, which checks every file. */
function expectGood(...names: string[]): void {
  const { stdout, exitCode } = Bun.spawnSync(["sha256sum", "--check", "--strict", "SHA256SUMS"], {
    cwd: top,
  });
  expect(stdout.toString()).toBe(names.map((name) => `${name}: OK\n`).join(""));
  expect(exitCode).toBe(0);
  const { stdout: own } = Bun.spawnSync(["sha256sum", "--", ...names], { cwd: top });
  expect(readList()).toBe(own.toString());
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

test("is computed with the fastest program at hand, in sha256sum's format", async () => {
  fill("disk-0.qcow2", "manifest.json", "vm.defaults");
  await writeSums(top);
  process.env.PATH = path;
  expectGood("disk-0.qcow2", "manifest.json", "vm.defaults");
});

test("escapes special names", async () => {
  fill("-r", "a b");
  await writeSums(top);
  expectGood("-r", "a b");
});

test.each([
  ["no openssl", undefined],
  ["one that fails", "exit 1"],
  ["one that prints something else", "echo hello"],
  ["one that prints another file's name", `echo "${"0".repeat(64)} *b"`],
])("%s", async (_name, script) => {
  fill("a", "b");
  withOpenssl(script);
  await writeSums(top);
  process.env.PATH = path;
  expectGood("a", "b");
});

const SUM = "0123456789abcdef".repeat(4);

describe("parseSums", () => {
  test("accepts sha256sum's lines, text or binary, escaped names too", () => {
    const text = `${SUM}  a b\n${SUM} *-r\n\\${SUM}  a\\\\b\n`;
    expect(parseSums(text)).toEqual({
      sums: new Map([
        ["a b", SUM],
        ["-r", SUM],
        ["a\\b", SUM],
      ]),
      problems: [],
    });
  });

  test.each([
    `${SUM}  ../outside`,
    `${SUM}  /dev/zero`,
    `${SUM}  ..`,
    `${SUM}  .`,
    `${SUM}  `,
    `${SUM.toUpperCase()}  a`,
    `${SUM.slice(1)}  a`,
    `${SUM} a`,
    `${SUM}  a\x1bb`,
    `\\${SUM}  a\\nb`,
    `${SUM}  a\\b`,
    "",
    `${SUM}  ${"x".repeat(256)}`,
  ])("rejects the line %j, which names nothing", (line) => {
    const { sums, problems } = parseSums(`${line}\n`);
    expect(sums.size).toBe(0);
    expect(problems).toEqual(["SHA256SUMS:1: not a line of sha256sum"]);
  });

  test("rejects a duplicate name, and a truncated list", () => {
    const { sums, problems } = parseSums(`${SUM}  a\n${SUM}  a\n${SUM}  b`);
    expect([...sums.keys()]).toEqual(["a"]);
    expect(problems).toEqual(["SHA256SUMS is truncated", "SHA256SUMS:2: duplicate name a"]);
  });
});

describe("compareSums", () => {
  test.each([
    ["openssl", undefined],
    ["sha256sum", "exit 1"],
  ])("by %s: finds wrong files, and no others", async (_title, script) => {
    fill("a.gz", "b.gz", "c.gz", "d.gz");
    writeFileSync(join(top, "small"), "small\n");
    await writeSums(top);
    if (script !== undefined) withOpenssl(script);
    expect(await compareSums(top)).toEqual([]);
    writeFileSync(join(top, "b.gz"), "B");
    writeFileSync(join(top, "small"), "Small\n");
    rmSync(join(top, "c.gz"));
    expect(await compareSums(top)).toEqual([
      "b.gz: its checksum is wrong",
      "c.gz: it is missing",
      "small: its checksum is wrong",
    ]);
    expect(await compareSums(top, { only: (name) => name === "a.gz" })).toEqual([]);
  });

  test("does not read or wait for files that are not regular", async () => {
    fill("a.gz", "b.gz", "c.gz", "d.gz");
    await writeSums(top);
    for (const name of ["a.gz", "b.gz", "c.gz"]) rmSync(join(top, name));
    Bun.spawnSync(["mkfifo", join(top, "a.gz")]);
    symlinkSync("/dev/zero", join(top, "b.gz"));
    mkdirSync(join(top, "c.gz"));
    expect(await compareSums(top)).toEqual([
      "a.gz: it is a named pipe, not a regular file",
      "b.gz: it is a symbolic link, not a regular file",
      "c.gz: it is a directory, not a regular file",
    ]);
  });

  test("does not read a file of another length", async () => {
    fill("a.gz");
    await writeSums(top);
    truncateSync(join(top, "a.gz"), 2 ** 43);
    expect(await computeSum(join(top, "a.gz"), 3 << 20)).toBeUndefined();
    expect(await compareSums(top, { sizes: new Map([["a.gz", 3 << 20]]) })).toEqual([
      "a.gz: its checksum is wrong",
    ]);
  });
});
