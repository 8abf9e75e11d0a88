import { appendFileSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { describe, expect, test } from "bun:test";
import { OutputWatch, readJobStatus, ToldStatus } from "../../src/rescue/output.ts";
import { tameText } from "../../src/lib/text.ts";
import { Temp } from "../fixtures/temp.ts";

describe("the status is", () => {
  test.each<[string, number | undefined]>([
    ["0\n", 0],
    ["0", 0],
    ["42\n", 42],
    ["255\n", 255],
    ["256\n", undefined],
    ["", undefined],
    ["\n", undefined],
    ["-1\n", undefined],
    ["0 0\n", undefined],
    ["0\n0\n", undefined],
    ["zero\n", undefined],
    ["1234567890123456789\n", undefined],
  ])("%j: %p", (text, status) => {
    using temp = new Temp();
    temp.write("STATUS", text);
    expect(readJobStatus(temp.top)).toBe(status);
  });

  test("undefined without a file, and for a symlink or a directory", () => {
    using temp = new Temp();
    expect(readJobStatus(temp.top)).toBeUndefined();
    temp.write("other", "0\n");
    symlinkSync(temp.path("other"), temp.path("STATUS"));
    expect(readJobStatus(temp.top)).toBeUndefined();
    mkdirSync(temp.path("below/STATUS"), { recursive: true });
    expect(readJobStatus(temp.path("below"))).toBeUndefined();
  });
});

test("prints the log as it grows, once and completely, and reports start and end once", async () => {
  using temp = new Temp();
  let text = "";
  const events: string[] = [];
  const seen = { started: () => void events.push("started"), finished: () => void events.push("finished") };
  using watch = new OutputWatch(temp.top, new ToldStatus(temp.top), seen, async (piece) => {
    await Bun.sleep(1);
    text += Buffer.from(piece).toString();
  });
  writeFileSync(temp.path("STARTED"), "");
  for (let line = 0; line < 200; line++) {
    appendFileSync(temp.path("job.log"), `${line} ${"x".repeat(1000)}\n`);
    if (line % 50 === 0) await Bun.sleep(5);
  }
  writeFileSync(temp.path("STATUS"), "7\n");
  await watch.drain();
  expect(text.split("\n").map((line) => line.split(" ")[0])).toEqual([...Array(200).keys(), ""].map(String));
  expect(events).toEqual(["started", "finished"]);
});

test("writes what the rescue says by its channel, in place of what the job has left there", async () => {
  using temp = new Temp();
  const told = new ToldStatus(temp.top);
  mkdirSync(temp.path("STATUS/below"), { recursive: true });
  for (const line of ["status", "status 1000", "status 256", "status 7 ", "ready"]) told.hear(line);
  expect([told.isComplete, existsSync(temp.path("STARTED"))]).toEqual([false, false]);
  told.hear("started");
  expect(readFileSync(temp.path("STARTED"), "utf8")).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n$/);
  told.hear("status 7");
  // The first one counts.
  told.hear("status 0");
  await told.complete;
  expect([told.isComplete, readJobStatus(temp.top), existsSync(temp.path("FINISHED"))]).toEqual([
    true,
    7,
    true,
  ]);
});

test("what cannot be written counts nevertheless", () => {
  using temp = new Temp();
  const told = new ToldStatus(temp.path("nosuch"));
  told.hear("started");
  told.hear("status 9");
  expect([told.isComplete, told.started, told.status]).toEqual([true, true, 9]);
});

test("of a rescue that tells by its channel, files of its job count no more", () => {
  using temp = new Temp();
  const told = new ToldStatus(temp.top);
  for (const name of ["STARTED", "STATUS"]) temp.write(name, "0\n");
  expect([told.started, told.status]).toEqual([true, 0]);
  // Not without the start.
  told.hear("status 0");
  expect(told.isComplete).toBe(false);
  told.hear("started");
  temp.write("STATUS", "0\n");
  expect(told.status).toBeUndefined();
  told.hear("status 7");
  temp.write("STATUS", "0\n");
  expect([told.isComplete, told.status]).toEqual([true, 7]);
});

test("does not follow a log that is a symlink", async () => {
  using temp = new Temp();
  temp.write("secret", "the secret\n");
  symlinkSync(temp.path("secret"), temp.path("job.log"));
  let text = "";
  using watch = new OutputWatch(
    temp.top,
    new ToldStatus(temp.top),
    { started: () => {}, finished: () => {} },
    async (piece) => {
      text += Buffer.from(piece).toString();
    },
  );
  await watch.drain();
  expect(text).toBe("");
});

test.each<[string, string]>([
  ["plain\tтекст\r\n", "plain\tтекст\r\n"],
  ["\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"],
  ["\x1b]0;title\x07", "^[]0;title?"],
  ["\x1b[2J\x1b[H", "^[[2J^[[H"],
  ["\x9b31m\x00", "?31m?"],
])("on a terminal, %j is printed as %j", (text, shown) => {
  expect(tameText(text)).toBe(shown);
});
