import { expect, test } from "bun:test";
import { parseEvents } from "../../src/store/events.ts";

test("reads events of a run, without greetings, answers, and a truncated line", () => {
  const text = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}
{"return": {}}
{"timestamp": {"seconds": 1700000000, "microseconds": 500000}, "event": "STOP"}
{"timestamp": {"seconds": 1700000001, "microseconds": 0}, "event": "SHUTDOWN", "data": {"guest": false, "reason": "host-signal"}}
{"timestamp": {"seconds": 1700000002, "micro`;
  expect(parseEvents(text)).toEqual([
    { event: "STOP", data: {}, at: new Date(1_700_000_000_500) },
    { event: "SHUTDOWN", data: { guest: false, reason: "host-signal" }, at: new Date(1_700_000_001_000) },
  ]);
});

test.each([
  "",
  "\n",
  '{"event": "SHUTDOWN", "timestamp": {"seconds": "x"}}',
  '{"event": "SHUTDOWN", "timestamp": {}}',
  '{"event": "SHUTDOWN", "timestamp": {"seconds": 1e300, "microseconds": 0}}',
  '{"event"',
  '{"event": 5, "timestamp": {}}',
  '"event"',
])("none in %j", (text) => {
  expect(parseEvents(text)).toEqual([]);
});
