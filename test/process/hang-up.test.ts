import { expect, test } from "bun:test";
import { closeSync } from "node:fs";
import { constants } from "node:os";
import { start } from "../../src/process/exec.ts";
import { pipe, signalAtHangUp } from "../../src/process/libc.ts";

test("a process is sent a signal when the other end of its pipe is closed", async () => {
  const [readEnd, writeEnd] = pipe();
  const child = start(["sleep", "60"], { furtherFds: [readEnd], whenOrphaned: "none" });
  signalAtHangUp(readEnd, child.pid, constants.signals.SIGTERM);
  closeSync(readEnd);
  closeSync(writeEnd);
  expect(await child.done).toMatchObject({ signal: "SIGTERM" });
});
