/** Errors state that nothing has changed only where the code can know it (VOICE: errors). */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { failureOf } from "./fixtures/failure.ts";
import { fileError } from "../src/store/files.ts";

const SRC = join(import.meta.dir, "../src");
const PROMISE = /nothing was (?:changed|removed|touched)|(?:was|were) not touched|unchanged/g;

/**
 * - cli/exit-statuses: the whole command line is parsed before the first command runs.
 * - snapshot/remove, snapshot/merge: thrown before the first snapshot of the command is removed.
 * - snapshot/restore: new working files are written beside the old ones; thrown before these are replaced.
 */
const KNOWN: Readonly<Record<string, number>> = {
  "cli/exit-statuses.ts": 1,
  "snapshot/restore-images.ts": 1,
  "snapshot/restore-ram.ts": 1,
  "snapshot/restore.ts": 2,
  "snapshot/merge.ts": 2,
  "snapshot/remove.ts": 1,
};

test("only these places state that nothing was changed", () => {
  const found: Record<string, number> = {};
  for (const file of new Bun.Glob("**/*.ts").scanSync({ cwd: SRC, absolute: true })) {
    const code = readFileSync(file, "utf8").replaceAll(/^\s*(?:\/\/|\/?\*).*$/gm, "");
    const count = code.match(PROMISE)?.length ?? 0;
    if (count > 0) found[relative(SRC, file)] = count;
  }
  expect(found).toEqual(KNOWN);
});

test("a full disk is an error without such a statement", async () => {
  const full = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
  const error = await failureOf(() => {
    throw fileError("the guest shut down, but the exit reason cannot be recorded", full);
  });
  expect(error.exitCode).toBe(73);
  expect(error.hint).toBe("free some space and run the command again");
});
