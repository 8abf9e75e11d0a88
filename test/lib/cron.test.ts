import { describe, expect, test } from "bun:test";
import { cronFields, quoteForCron } from "../../src/lib/cron.ts";
import { cronCommand } from "../fixtures/cron.ts";

test.each([
  ["hourly", "17 * * * *"],
  ["daily", "17 5 * * *"],
  ["weekly", "17 5 * * 1"],
  ["monthly", "17 5 1 * *"],
  ["yearly", "17 5 1 1 *"],
  ["03:30", "30 3 * * *"],
  ["*-*-* 23:05:00", "5 23 * * *"],
  ["*:15", "15 * * * *"],
  ["*/10 * * * mon-fri", "*/10 * * * mon-fri"],
  ["Mon *-*-* 03:00", undefined],
  ["constructor", undefined],
  ["24:00", undefined],
  ["* * * *", undefined],
  ["* * * * * *", undefined],
  ["", undefined],
])("cronFields %j", (when, fields) => expect(cronFields(when, 17 + 60 * 5)).toBe(fields));

test("every number yields a valid time", () => {
  for (let spread = 0; spread < 1000; spread++)
    expect(cronFields("daily", spread)).toMatch(/^([0-9]|[1-5]\d) [0-5] \* \* \*$/);
});

describe("quoteForCron: the word survives cron and sh", () => {
  const words = [
    "plain/word",
    "a b",
    "100%",
    "a\\%b",
    "a\\\\b",
    "\\",
    "it's",
    "'\\''%",
    '$HOME `id` "q"',
    "~",
    "",
    "Ёлка",
    "a#b;c&d|e<f>g(h)*?[i]",
  ];
  test.each(words)("%j", (word) => {
    for (const flavour of ["vixie", "cronie"] as const) {
      const command = cronCommand(`printf %s ${quoteForCron(word)}`.replace("%s", "\\%s"), flavour);
      const { stdout } = Bun.spawnSync(["sh", "-c", command], { env: { PATH: "/usr/bin:/bin", HOME: "/" } });
      expect(`${flavour}: ${stdout.toString()}`).toBe(`${flavour}: ${word}`);
    }
  });
});
