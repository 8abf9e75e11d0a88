import { expect, test } from "bun:test";
import { parseEvent, type QmpEvent } from "../../src/qmp/events.ts";
import { findGuestErrors } from "../../src/vm/guest-errors.ts";

const event = (name: QmpEvent["event"], data: object = {}): QmpEvent => parseEvent(name, data)!;
const failure = (action: string, nospace = false) =>
  event("BLOCK_IO_ERROR", {
    action,
    nospace,
    reason: nospace ? "No space left on device" : "Input/output error",
    operation: "write",
    "node-name": "disk0",
  });

const NO_SPACE = "guest paused: no space left for its disks in /w (disk0, write)";
const PAUSED = "guest paused: Input/output error (disk0, write)";

test.each([
  ["nothing", [], []],
  ["a start and an end", [event("RESUME"), event("SHUTDOWN", { reason: "guest-shutdown" })], []],
  ["an error that the guest does not see", [failure("ignore")], []],
  [
    "an error that the guest sees, twice",
    [failure("report"), failure("report")],
    ["I/O error on a disk of the guest: Input/output error (disk0, write); reported to the guest"],
  ],
  ["a pause for lack of space", [failure("stop", true), event("STOP")], [NO_SPACE]],
  ["one that is over", [failure("stop", true), event("STOP"), event("RESUME")], []],
  ["one that happened again", [failure("stop", true), event("RESUME"), failure("stop", true)], [NO_SPACE]],
  ["a pause for an I/O error", [failure("stop"), event("STOP")], [PAUSED]],
  [
    "a panic, after a resume",
    [event("GUEST_PANICKED", { action: "pause" }), event("RESUME")],
    ["the guest's kernel panicked"],
  ],
  [
    "a panic and a reboot",
    [event("GUEST_PANICKED"), event("RESET")],
    ["the guest's kernel panicked, and was restarted since"],
  ],
  ["a reboot without a panic", [event("RESET")], []],
])("a run with %s in its log of events", (_what, events, texts) => {
  expect(findGuestErrors("/w", events).map(({ text }) => text)).toEqual(texts);
});
