/**
 * Compares the tables of commands and events with qemu's schema: of the installed qemu, and stored ones
 * of other versions. UPDATE_GOLDEN=1 stores the installed one's, reduced to the compared parts.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { QMP_COMMANDS, type CommandShape } from "../../src/qmp/commands.ts";
import { QMP_EVENTS } from "../../src/qmp/events.ts";
import type { Shape } from "../../src/qmp/shape.ts";
import { querySchema, Schema, type Entity } from "./schema.ts";

const STORED = join(import.meta.dir, "../fixtures/qmp-schema");
const BINARY = "qemu-system-x86_64";

const hasQemu = Bun.which(BINARY) !== null;
const running = hasQemu ? await querySchema(BINARY) : undefined;

const updates = process.env.UPDATE_GOLDEN === "1";
// What is about to be stored cannot be compared yet.
const stored = (updates ? [] : readdirSync(STORED)).map((name) => {
  const lines = readFileSync(join(STORED, name), "utf8").trim().split("\n");
  return [name, lines.map((line) => JSON.parse(line) as Entity)] as const;
});
const schemas = [...(running ? [["the qemu of this host", running] as const] : []), ...stored].map(
  ([name, entities]) => [name, new Schema(entities)] as const,
);

describe.each(schemas)("%s", (_name, schema) => {
  test.each(Object.entries<CommandShape>(QMP_COMMANDS))("%s", (name, { args = {}, reply, recent }) => {
    const command = schema.find(name);
    if (recent && !command) return;
    expect(command?.["meta-type"], "new in the table? UPDATE_GOLDEN=1 bun test test/qmp/schema.test.ts").toBe(
      "command",
    );
    expect(command!.features ?? []).not.toContain("deprecated");
    expect(schema.compare(args, command!["arg-type"], "sent", "arguments")).toEqual([]);
    if (reply) expect(schema.compare(reply, command!["ret-type"], "read", "reply")).toEqual([]);
  });

  test.each(Object.entries<Shape>(QMP_EVENTS))("event %s", (name, members) => {
    const event = schema.find(name);
    expect(event?.["meta-type"]).toBe("event");
    expect(schema.compare(members, event!["arg-type"], "heard", "data")).toEqual([]);
  });
});

test("under CI a qemu is installed", () => {
  expect(hasQemu || process.env.CI !== "true").toBe(true);
});

afterAll(() => {
  if (!updates || !running) return;
  const { stdout } = Bun.spawnSync([BINARY, "--version"]);
  const version = /version (\d+\.\d+)/.exec(stdout.toString())![1]!;
  const lines = [...schemas[0]![1].used].map((entity) => `${JSON.stringify(entity)}\n`);
  writeFileSync(join(STORED, `qemu-${version}.jsonl`), lines.join(""));
});

describe("finds a difference:", () => {
  const schema = new Schema([
    { name: "str", "meta-type": "builtin", "json-type": "string" },
    { name: "int", "meta-type": "builtin", "json-type": "int" },
    { name: "E", "meta-type": "enum", values: ["a", "b"] },
    { name: "[E]", "meta-type": "array", "element-type": "E" },
    { name: "A", "meta-type": "object", members: [{ name: "x", type: "int" }] },
    { name: "B", "meta-type": "object", members: [{ name: "y", type: "str", features: ["deprecated"] }] },
    {
      name: "S",
      "meta-type": "alternate",
      members: [
        { name: "0", type: "str" },
        { name: "1", type: "A" },
      ],
    },
    {
      name: "O",
      "meta-type": "object",
      members: [
        { name: "kind", type: "E" },
        { name: "list", type: "[E]", default: null },
        { name: "ref", type: "S", default: null },
      ],
      tag: "kind",
      variants: [
        { case: "a", type: "A" },
        { case: "b", type: "B" },
      ],
    },
  ]);
  const a = { kind: { oneOf: ["a"] }, x: "number" } as const;

  test.each<[Shape, "sent" | "read" | "heard", string[]]>([
    [a, "sent", []],
    [{ ...a, list: [{ oneOf: ["b"] }], ref: "string" }, "sent", []],
    [{ ...a, ref: { x: "number" } }, "sent", []],
    [{ kind: { oneOf: ["a"] } }, "sent", ["o.x: is not sent, and qemu needs it"]],
    [{ ...a, y: "string" }, "sent", ["o.y: qemu does not know it"]],
    [{ ...a, x: "string" }, "sent", ["o.x: is no string"]],
    [{ ...a, list: "string" }, "sent", ["o.list: is no string"]],
    [{ ...a, list: [{ oneOf: ["c"] }] }, "sent", ["o.list[]: has no c"]],
    [{ ...a, ref: "boolean" }, "sent", ["o.ref: none of qemu's alternatives"]],
    [{ kind: { oneOf: ["b"] }, y: "string" }, "sent", ["o.y: is deprecated"]],
    [{ either: [a, { kind: { oneOf: ["a"] }, x: "boolean" }] }, "sent", ["o(1).x: is no boolean"]],
    [{ kind: { known: ["a", "c"] } }, "read", ["o.kind: has no c"]],
    [{ kind: { known: ["a"] }, list: [{ known: ["a"] }] }, "read", ["o.list: may be absent"]],
    [{ "list?": [{ known: ["a"] }], "x?": "number" }, "read", []],
    [{ list: [{ known: ["a"] }] }, "heard", []],
    [["string"], "read", ["o: is no list"]],
  ])("%j, %s", (shape, direction, complaints) => {
    expect(schema.compare(shape, "O", direction, "o")).toEqual(complaints);
  });
});
