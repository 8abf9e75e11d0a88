import { afterEach, expect, test } from "bun:test";
import {
  aboutVm,
  commandLine,
  commandLineFor,
  programLine,
  setCommandLine,
} from "../../src/lib/command-line.ts";

afterEach(() => setCommandLine("vm"));

test("hints are about the VM of the command line, and about another one while that is at work", () => {
  setCommandLine("vm", "base");
  expect(commandLine("restore", "S 1")).toBe("vm -d base restore 'S 1'");
  expect(programLine("list")).toBe("vm list");
  {
    using _hints = aboutVm("/srv/web 1");
    expect(commandLine("restore")).toBe("vm -d '/srv/web 1' restore");
    expect(commandLineFor("/srv/web2", "status")).toBe("vm -d /srv/web2 status");
  }
  expect(commandLine("restore")).toBe("vm -d base restore");
});
