import { describe, expect, test } from "bun:test";
import { VmError } from "../../src/lib/errors.ts";
import { parseEvent, readShutdown } from "../../src/qmp/events.ts";
import { LineSplitter, parseQmpLine, type QmpMessage } from "../../src/qmp/protocol.ts";

describe("parseQmpLine", () => {
  test.each<[string, QmpMessage | undefined]>([
    [
      '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}',
      { kind: "greeting", version: "7.2.22" },
    ],
    ['{"return": {}, "id": 1}', { kind: "reply", id: 1, value: {} }],
    ['{"id": 7, "return": [1, null]}', { kind: "reply", id: 7, value: [1, null] }],
    ['{"return": "error", "id": 0}', { kind: "reply", id: 0, value: "error" }],
    [
      '{"error": {"class": "GenericError", "desc": "no"}, "id": 2}',
      { kind: "failure", id: 2, error: { class: "GenericError", desc: "no" } },
    ],
    [
      '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}',
      { kind: "event", event: { event: "STOP", data: {} } },
    ],
    [
      '{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}',
      { kind: "event", event: { event: "SHUTDOWN", data: { guest: true, reason: "guest-shutdown" } } },
    ],
    ['{"event": "POWERDOWN"}', undefined],
    ['{"event": "constructor"}', undefined],
    ["{}", undefined],
    ['{"other": 1}', undefined],
    ["[]", undefined],
  ])("%s", (line, message) => {
    expect(parseQmpLine(line)).toEqual(message);
  });
});

describe("readShutdown", () => {
  test.each([
    ["SHUTDOWN", { guest: true, reason: "guest-shutdown" }, { guest: true, reason: "guest-shutdown" }],
    ["SHUTDOWN", { guest: false, reason: "host-signal" }, { guest: false, reason: "host-signal" }],
    ["SHUTDOWN", {}, { guest: false, reason: "unknown" }],
    ["SHUTDOWN", { guest: "true", reason: 1 }, { guest: false, reason: "unknown" }],
    ["STOP", { guest: true, reason: "x" }, undefined],
    ["POWERDOWN", { guest: true, reason: "x" }, undefined],
  ])("%s %j: %j", (event, data, shutdown) => {
    const parsed = parseEvent(event, data);
    expect(parsed && readShutdown(parsed)).toEqual(shutdown);
  });
});

describe("LineSplitter", () => {
  test.each<[string[], string[][]]>([
    [["a\n"], [["a"]]],
    [["a\nb\n"], [["a", "b"]]],
    [
      ["a", "b\nc", "\n"],
      [[], ["ab"], ["c"]],
    ],
    [["a\r\nb\r\n"], [["a", "b"]]],
    [
      ["a\r", "\nb"],
      [[], ["a"]],
    ],
    [["\n\n\r\n"], [[]]],
    [["a\rb\n"], [["a\rb"]]],
    [[""], [[]]],
  ])("%j", (pieces, lines) => {
    const splitter = new LineSplitter("qemu", 1024);
    expect(pieces.map((piece) => splitter.push(Buffer.from(piece)))).toEqual(lines);
  });

  const text = '{"name":"Ёлка 😀 漢字"}\nsecond é\n';
  test.each(Array.from(Buffer.from(text).keys()))("joins UTF-8 that is split at byte %d", (at) => {
    const bytes = Buffer.from(text);
    const splitter = new LineSplitter("qemu", 1024);
    const lines = [...splitter.push(bytes.subarray(0, at)), ...splitter.push(bytes.subarray(at))];
    expect(lines).toEqual(text.trim().split("\n"));
  });

  test("joins UTF-8 in single bytes", () => {
    const splitter = new LineSplitter("qemu", 1024);
    const lines = [...Buffer.from(text)].flatMap((byte) => splitter.push(Uint8Array.of(byte)));
    expect(lines).toEqual(text.trim().split("\n"));
  });
});

describe("a line of more than its limit", () => {
  const refusal = "connection to the guest closed: it sent a line of more than 8 B";
  test.each<[string, string[]]>([
    ["in one piece", ["123456789"]],
    ["in pieces", ["1234", "5678", "9"]],
    ["with its end", ["1234", "56789\n"]],
    ["after another line", ["a\n12345678", "9"]],
  ])("%s is rejected", (_title, pieces) => {
    const splitter = new LineSplitter("the guest", 8);
    expect(() => pieces.map((piece) => splitter.push(Buffer.from(piece)))).toThrow(refusal);
  });

  test("accepts a line of exactly its limit", () => {
    const splitter = new LineSplitter("the guest", 8);
    expect(splitter.push(Buffer.from("12345678\n12345678"))).toEqual(["12345678"]);
    expect(splitter.push(Buffer.from("\n"))).toEqual(["12345678"]);
  });
});

describe("an invalid message", () => {
  test.each(["garbage", "null", "7", '{"QMP": {}}', '{"QMP": null}', '{"QMP": {"version": {"qemu": "7"}}}'])(
    "%s is an error (74)",
    (line) => {
      expect(() => parseQmpLine(line)).toThrow(VmError);
    },
  );

  test.each(['{"error": 1, "id": 2}', '{"return": 1, "id": "2"}', '{"event": 5}'])(
    "%s is ignored",
    (line) => {
      expect(parseQmpLine(line)).toBeUndefined();
    },
  );

  test("accepts an error without its members", () => {
    expect(parseQmpLine('{"error": {"desc": 5}, "id": 2}')).toEqual({
      kind: "failure",
      id: 2,
      error: { class: "GenericError", desc: "no reason given" },
    });
  });
});
