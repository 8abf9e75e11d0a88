import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { expect, test } from "bun:test";
import type { Context } from "../../src/vm/context.ts";
import { parseReleaseSums, selfCheck } from "../../src/host/self-check.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

const SUM = createHash("sha256").update(readFileSync(process.execPath)).digest("hex");
const OTHER = "0".repeat(64);

function run(temp: Temp, sums?: string): string {
  let printed = "";
  const print = (text: string): void => void (printed += text);
  selfCheck({ cwd: temp.top, print } as unknown as Context, sums);
  return printed;
}

test("without a list: prints the line of sha256sum", () => {
  using temp = new Temp();
  expect(run(temp)).toBe(`${SUM}  ${process.execPath}\n`);
});

test("accepts a list in another directory", () => {
  using temp = new Temp();
  temp.write("SHA256SUMS", `${OTHER}  other\n${SUM} *vm-0.1.0-linux-x64\n`);
  expect(run(temp, "SHA256SUMS")).toBe(`${process.execPath} is vm-0.1.0-linux-x64\n`);
});

test.each([
  ["another", `${OTHER}  vm\n`, 74, "is not in SHA256SUMS"],
  ["no list", "nothing\n", 74, "contains no checksums"],
  ["empty", "", 74, "contains no checksums"],
])("reports %s", async (_what, text, status, words) => {
  using temp = new Temp();
  temp.write("SHA256SUMS", text);
  const error = await failureOf(() => run(temp, "SHA256SUMS"));
  expect(error.exitCode).toBe(status);
  expect(error.message).toContain(words);
});

test("fails without the list (66)", async () => {
  using temp = new Temp();
  expect((await failureOf(() => run(temp, "nowhere"))).exitCode).toBe(66);
});

test("parses plain, escaped and tagged lines", () => {
  const list = parseReleaseSums(`${"AB".repeat(32)}  a b\n\\${"1".repeat(64)}  a\\\\b\nrubbish\n`);
  expect([...list]).toEqual([
    ["ab".repeat(32), "a b"],
    ["1".repeat(64), String.raw`a\b`],
  ]);
  expect([...parseReleaseSums(`SHA256 (a (b)) = ${OTHER}\n`)]).toEqual([[OTHER, "a (b)"]]);
});
