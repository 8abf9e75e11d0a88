import { expect, test } from "bun:test";
import { runLine } from "../../src/process/script.ts";
import { failureOf } from "../fixtures/failure.ts";

test.each(["$HOME", "$(id)", "`id`", "a b", "'", '"', "*", ";", "a\nb", "", "~", "\\", "Ё"])(
  "passes the word %j through the shell unchanged",
  async (word) => {
    expect((await runLine(["printf", "<%s>", word, "end"])).stdout).toBe(`<${word}><end>`);
  },
);

test("returns output, status and argv; in the C locale", async () => {
  const argv = ["sh", "-c", 'echo "$LC_ALL"; echo err >&2; exit 3'];
  expect(await runLine(argv)).toEqual({ argv, stdout: "C\n", stderr: "err\n", status: 3, signal: null });
});

test("rejects a program that is not installed (exit 69)", async () => {
  expect((await failureOf(() => runLine(["no-such-program"]))).exitCode).toBe(69);
});
