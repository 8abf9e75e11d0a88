import { describe, expect, spyOn, test } from "bun:test";
import * as streams from "../../src/lib/standard-streams.ts";
import { reportError } from "../../src/cli/report.ts";
import { SignalError, StatusError, VmError } from "../../src/lib/errors.ts";

/** Exit status and text of a report. */
function report(error: unknown, debug = false): { status: number; text: string } {
  const written: string[] = [];
  const spy = spyOn(streams, "writeError").mockImplementation((text) => {
    written.push(String(text));
    return true;
  });
  try {
    return { status: reportError(error, debug), text: written.join("") };
  } finally {
    spy.mockRestore();
  }
}

describe("reportError", () => {
  test("prints the message, then the hint with each line indented", () => {
    expect(report(new VmError("busy", "cannot run: held", { hint: "wait\nor end it" }))).toEqual({
      status: 75,
      text: "vm: cannot run: held\n  wait\n  or end it\n",
    });
  });

  test("a line break in a name does not start a message", () => {
    const { text } = report(new VmError("io", "cannot read a\nvm: all is well\u001b[2J"));
    expect(text).toBe("vm: cannot read a\n  vm: all is well?[2J\n");
  });

  test.each([
    ["a signal", new SignalError("SIGTERM", 15), 143, "interrupted by SIGTERM"],
    ["an internal error", new TypeError("x is not a function"), 70, "internal error: x is not a function"],
    ["anything thrown", "text", 70, "internal error: text"],
    ["undefined", undefined, 70, "internal error: undefined"],
  ])("%s", (_title, error, status, message) => {
    const reported = report(error);
    expect(reported.status).toBe(status);
    expect(reported.text).toContain(`vm: ${message}\n`);
    expect(reported.text).not.toContain("    at ");
  });

  test("prints no message for a program of the user, which has printed its own", () => {
    const error = new StatusError("ssh ended with status 7", 7);
    expect(report(error)).toEqual({ status: 7, text: "" });
    expect(report(error, true).text).toStartWith("vm: ssh ended with status 7\n");
  });

  test("--debug prints the stack and the cause", () => {
    const { text } = report(new VmError("io", "outer", { cause: new Error("inner") }), true);
    expect(text).toContain("    at ");
    expect(text).toContain("caused by Error: inner");
  });
});
