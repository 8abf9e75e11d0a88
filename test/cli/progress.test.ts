import { describe, expect, spyOn, test } from "bun:test";
import { createMeter, formatProgress } from "../../src/cli/progress.ts";
import * as streams from "../../src/lib/standard-streams.ts";
import * as terminal from "../../src/process/terminal.ts";

const MIB = 1024 ** 2;

test.each([
  [0, 100 * MIB, 0, "backup S0 [....................]   0 % 0 B of 100 MiB"],
  [0, 100 * MIB, 5, "backup S0 [....................]   0 % 0 B of 100 MiB"],
  [25 * MIB, 100 * MIB, 5, "backup S0 [#####...............]  25 % 25 MiB of 100 MiB, 5.0 MiB/s, 15 s left"],
  [
    199 * MIB,
    200 * MIB,
    10,
    "backup S0 [####################]  99 % 199 MiB of 200 MiB, 20 MiB/s, 0.1 s left",
  ],
  [
    100 * MIB,
    100 * MIB,
    10,
    "backup S0 [####################] 100 % 100 MiB of 100 MiB, 10 MiB/s, 0.0 s left",
  ],
  [0, 0, 1, "backup S0 [####################] 100 % 0 B of 0 B"],
])("%d of %d bytes in %d s: %s", (done, total, seconds, line) => {
  expect(formatProgress("backup S0", done, total, seconds)).toBe(line);
});

// "backup S0 [20 columns]  99 % 1020 MiB of 1.0 GiB, 20 MiB/s, 0.2 s left" has 80.
test.each([
  [100, "backup S0 [####################]  99 % 1020 MiB of 1.0 GiB, 20 MiB/s, 0.2 s left"],
  [80, "backup S0 [####################]  99 % 1020 MiB of 1.0 GiB, 20 MiB/s, 0.2 s left"],
  [79, "backup S0 [###################]  99 % 1020 MiB of 1.0 GiB, 20 MiB/s, 0.2 s left"],
  [65, "backup S0 [#####]  99 % 1020 MiB of 1.0 GiB, 20 MiB/s, 0.2 s left"],
  [64, "backup S0 [####################]  99 % 1020 MiB of 1.0 GiB"],
  [40, "[############]  99 % 1020 MiB of 1.0 GiB"],
  [10, "99 % 1020 "],
])("in %d columns: %s", (columns, line) => {
  expect(formatProgress("backup S0", 1020 * MIB, 1024 * MIB, 51, columns)).toBe(line);
});

describe("createMeter", () => {
  test("shows nothing unless stderr is a terminal", () => {
    using isTerminal = spyOn(terminal, "isTerminal").mockReturnValue(false);
    using written = spyOn(streams, "writeError");
    const meter = createMeter("x", 10);
    meter.update(5);
    meter.finish();
    expect(isTerminal).toHaveBeenCalled();
    expect(written).not.toHaveBeenCalled();
  });
});
