import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { parsePruneRequest } from "../../src/snapshot/prune.ts";
import { canExchange } from "../../src/snapshot/merge.ts";
import * as libc from "../../src/process/libc.ts";
import { readdirSync } from "node:fs";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

let temp: Temp;
beforeEach(() => {
  temp = new Temp();
});
afterEach(() => temp[Symbol.dispose]());

describe("arguments of prune", () => {
  test("are rules, the lock's limit, and whether to merge", () => {
    expect(parsePruneRequest({ "keep-daily": "7", "lock-timeout": "600" })).toMatchObject({
      rules: { daily: 7 },
      merge: true,
      waitMs: 600_000,
    });
    expect(parsePruneRequest({ "no-merge": true })).toMatchObject({ merge: false, waitMs: undefined });
  });

  test.each([{ "lock-timeout": "soon" }, { "keep-last": "x" }, { "by-name": true }])(
    "rejects %j (64)",
    async (args) => {
      expect((await failureOf(() => parsePruneRequest(args))).exitCode).toBe(64);
    },
  );
});

describe("an exchange of two names is tried in backups, and leaves nothing behind:", () => {
  test.each([true, false])("%p", (able) => {
    temp.directory("backups");
    const tried = able ? undefined : spyOn(libc, "exchange").mockImplementation(() => false);
    expect(canExchange(temp.top)).toBe(able);
    tried?.mockRestore();
    expect(readdirSync(temp.path("backups"))).toEqual([]);
  });

  test("supposed if it cannot be tried, as on a full disk", () => {
    expect(canExchange(temp.path("nowhere"))).toBe(true);
  });
});
