import { expect, test } from "bun:test";
import { formatTable } from "../../src/lib/table.ts";

test("a row is one line, whatever its cells contain", () => {
  expect(
    formatTable([
      ["NAME", "STATE"],
      ["a\nfake  running", "\u001b[2Jgood"],
    ]),
  ).toBe("NAME             STATE\na?fake  running  ?[2Jgood\n");
});
