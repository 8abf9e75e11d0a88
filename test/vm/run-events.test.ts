import { expect, test } from "bun:test";
import { parseEvents } from "../../src/store/events.ts";
import { describeRunEvents } from "../../src/vm/run-events.ts";

/** qemu's log, a second for each line. */
const logOf = (...events: [string, object?][]): string =>
  events
    .map(([event, data = {}], seconds) =>
      JSON.stringify({ timestamp: { seconds, microseconds: 0 }, event, data }),
    )
    .join("\n");

const describe = (...events: [string, object?][]): string[] =>
  describeRunEvents("/vm", "/work", parseEvents(`${logOf(...events)}\n`)).map(({ at, event, how }) =>
    [Date.parse(at) / 1000, event, how].filter((item) => item !== undefined).join(" "),
  );

const noSpace = { "node-name": "disk-0", operation: "write", action: "stop", nospace: true, reason: "full" };

test("a boot, a reboot by the guest and one by a command: ready once each time", () => {
  const open = ["VSERPORT_CHANGE", { id: "channel0-dev", open: true }] as [string, object];
  expect(
    describe(
      open,
      open,
      ["RESET", { guest: true, reason: "guest-reset" }],
      open,
      ["RESET", { guest: false, reason: "host-qmp-system-reset" }],
      ["VSERPORT_CHANGE", { id: "channel0-dev", open: false }],
    ),
  ).toEqual(["0 ready", "2 rebooted by the guest", "3 ready", "4 rebooted by a command"]);
});

test("a pause by a full disk has its reason, also if several requests failed; one by a command has none", () => {
  expect(
    describe(
      ["BLOCK_IO_ERROR", noSpace],
      ["BLOCK_IO_ERROR", noSpace],
      ["STOP"],
      ["RESUME"],
      ["STOP"],
      ["RESUME"],
    ),
  ).toEqual([
    "2 paused guest paused: no space left for its disks in /work (disk-0, write)",
    "3 resumed",
    "4 paused",
    "5 resumed",
  ]);
});

test("an error that the guest sees, once for the same words; a panic; what ends a run is no pause", () => {
  const reported = { ...noSpace, action: "report", nospace: false, reason: "bad" };
  expect(
    describe(
      ["BLOCK_IO_ERROR", reported],
      ["BLOCK_IO_ERROR", reported],
      ["GUEST_PANICKED", { action: "pause" }],
      ["SHUTDOWN", { guest: true, reason: "guest-shutdown" }],
      ["STOP"],
    ),
  ).toEqual([
    "0 failed I/O error on a disk of the guest: bad (disk-0, write); reported to the guest",
    "2 panicked",
  ]);
});
