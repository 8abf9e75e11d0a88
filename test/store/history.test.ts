import { expect, test } from "bun:test";
import {
  appendFileSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname } from "node:path";
import {
  appendHistory,
  findHistoryProblem,
  historyPath,
  parseHistory,
  readHistory,
  type VmEvent,
} from "../../src/store/history.ts";
import { Temp } from "../fixtures/temp.ts";

const event = (how: string): VmEvent => ({
  at: "2026-01-02T03:04:05.000Z",
  vm: "/vms/a",
  event: "ended",
  how,
});

test("events are appended to a file of the user's alone, and read back", () => {
  using temp = new Temp();
  const place = { env: {}, home: temp.path("home") };
  appendHistory(place, [event("one")]);
  appendHistory(place, [event("two\u001b[2J"), event("x".repeat(5000))]);
  expect(lstatSync(historyPath(place)).mode & 0o777).toBe(0o600);
  expect(lstatSync(dirname(historyPath(place))).mode & 0o777).toBe(0o700);
  expect(readHistory(place).map(({ how }) => how)).toEqual(["one", "two\u001b[2J", "x".repeat(1000)]);
});

test("XDG_STATE_HOME is respected, unless it is relative", () => {
  const home = "/home/a";
  expect(historyPath({ env: { XDG_STATE_HOME: "/s" }, home })).toBe("/s/vm/events.jsonl");
  expect(historyPath({ env: { XDG_STATE_HOME: "s" }, home })).toBe("/home/a/.local/state/vm/events.jsonl");
});

test("the file is bounded: the one before it is kept", () => {
  using temp = new Temp();
  const place = { env: {}, home: temp.path("home") };
  for (let index = 0; index < 3000; index++) appendHistory(place, [event(`${index} ${"x".repeat(900)}`)]);
  const read = readHistory(place);
  expect(read.length).toBeGreaterThan(1000);
  expect(read.length).toBeLessThan(2500);
  expect(read.at(-1)!.how).toStartWith("2999 ");
  const numbers = read.map(({ how }) => Number.parseInt(how!, 10));
  expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
});

test("a history that cannot be written or read is none: a link, a file for its directory", () => {
  using temp = new Temp();
  const place = { env: {}, home: temp.path("home") };
  mkdirSync(dirname(historyPath(place)), { recursive: true });
  writeFileSync(temp.path("other"), "kept");
  symlinkSync(temp.path("other"), historyPath(place));
  appendHistory(place, [event("one")]);
  expect(readHistory(place)).toEqual([]);
  expect(readFileSync(temp.path("other"), "utf8")).toBe("kept");
  writeFileSync(temp.path("file"), "");
  const nowhere = { env: { XDG_STATE_HOME: temp.path("file") }, home: "/" };
  appendHistory(nowhere, [event("one")]);
  expect(readHistory(nowhere)).toEqual([]);
});

test("an event after a line that was cut off is kept", () => {
  using temp = new Temp();
  const place = { env: {}, home: temp.path("home") };
  appendHistory(place, [event("one")]);
  appendFileSync(historyPath(place), '{"at":"2026');
  appendHistory(place, [event("two")]);
  expect(readHistory(place).map(({ how }) => how)).toEqual(["one", "two"]);
});

test("a pipe is not waited for, and said to be none", () => {
  using temp = new Temp();
  const place = { env: {}, home: temp.path("home") };
  expect(findHistoryProblem(place)).toBeUndefined();
  rmSync(historyPath(place));
  Bun.spawnSync(["mkfifo", historyPath(place)]);
  appendHistory(place, [event("one")]);
  expect(readHistory(place)).toEqual([]);
  expect(findHistoryProblem(place)).toContain("it is a named pipe");
});

test("lines that are no events, and members of other types, are ignored", () => {
  const good = { ...event("fine"), status: 3, snapshot: 4, further: true };
  const lines = [
    "",
    "{",
    "[]",
    "null",
    JSON.stringify({ ...event("x"), event: "toString" }),
    JSON.stringify({ ...event("x"), at: "yesterday" }),
    JSON.stringify({ ...event("x"), vm: 3 }),
    JSON.stringify(good),
    '{"at":"2026',
  ];
  expect(parseHistory(lines.join("\n"))).toEqual([{ ...event("fine"), status: 3 }]);
});
