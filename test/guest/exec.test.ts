import { expect, test } from "bun:test";
import { parseExecStatus } from "../../src/guest/exec.ts";

test.each([
  [{ exited: false }],
  [{ exited: true, exitcode: 7 }],
  [{ exited: true, signal: 9, "out-data": "QQ==", "err-data": "", "out-truncated": true }],
])("accepts the agent's reply %j", (reply) => {
  expect(parseExecStatus(reply)).toEqual(reply);
});

test.each([
  [undefined],
  ["exited"],
  [{}],
  [{ exited: "yes" }],
  [{ exited: true, exitcode: "0" }],
  [{ exited: true, exitcode: 1.5 }],
  [{ exited: true, signal: {} }],
  [{ exited: true, "out-data": 5 }],
])("rejects the agent's reply %j (74)", (reply) => {
  expect(() => parseExecStatus(reply)).toThrow(expect.objectContaining({ exitCode: 74 }));
});
