import { afterEach, describe, expect, spyOn, test } from "bun:test";
import * as streams from "../../src/lib/standard-streams.ts";
import { log, PLAIN, setupLog, snapshotName } from "../../src/lib/log.ts";

const THEME = {
  normal: "<0>",
  bold: "<white>",
  ok: "<ok>",
  error: "<error>",
  warning: "<warning>",
  command: "<yellow>",
  name: "<purple>",
};

function linesOf(write: () => void): string {
  const spy = spyOn(streams, "writeError").mockImplementation(() => true);
  try {
    write();
    return spy.mock.calls.map(([text]) => String(text)).join("");
  } finally {
    spy.mockRestore();
  }
}

afterEach(() => setupLog("vm", PLAIN));

describe("[compat] the announcement of a command", () => {
  test("is white, the command yellow, its arguments purple", () => {
    setupLog("vm", THEME);
    expect(linesOf(() => log.announce("backup", ["S0", "a text"]))).toBe(
      "<white>*** Executing command: <yellow>backup<0><white>(<purple>'S0'<0><white>, <purple>'a text'<0><white>)...<0>\n",
    );
  });

  test("has no colours if disabled", () => {
    expect(linesOf(() => log.announce("run", []))).toBe("*** Executing command: run()...\n");
    expect(linesOf(() => log.announce("run", ["a\x1b[1m\nb"]))).toBe(
      "*** Executing command: run('a?[1m\n  b')...\n",
    );
  });
});

test("highlights the names of snapshots within a coloured line", () => {
  setupLog("vm", THEME);
  expect(linesOf(() => log.success(`snapshot ${snapshotName("S0")}: 1 MiB`))).toBe(
    "<ok>snapshot <purple>S0<0><ok>: 1 MiB<0>\n",
  );
  expect(linesOf(() => log.info(`restoring ${snapshotName("S0")}`))).toBe("restoring <purple>S0<0>\n");
});
