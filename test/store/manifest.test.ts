import { describe, expect, test } from "bun:test";
import { parseManifest, type Manifest } from "../../src/store/manifest.ts";
import { failureOf } from "../fixtures/failure.ts";

const FILE = {
  name: "disk-0.img",
  file: "disk-0.img.gz",
  bytes: 300,
  allocatedBytes: 200,
  storedBytes: 100,
  virtualBytes: 1 << 30,
};
const MANIFEST: Manifest = {
  version: 1,
  format: "gz",
  tool: "vm 0.1.0",
  guest: "WS10",
  made: "2024-01-02T03:04:05.000Z",
  consistency: "offline",
  firstTime: false,
  files: [FILE, { name: "efivars.bin", file: "efivars.bin.gz", bytes: 1, allocatedBytes: 0, storedBytes: 2 }],
};

test("is read as written", () => {
  expect(parseManifest(JSON.stringify(MANIFEST, null, 2), "S0")).toEqual(MANIFEST);
});

test("may be of version 2: with the state of a TPM", () => {
  const state = {
    name: "tpm2-00.permall",
    file: "tpm2-00.permall.gz",
    bytes: 9,
    allocatedBytes: 0,
    storedBytes: 2,
  };
  const manifest = { ...MANIFEST, version: 2 as const, files: [FILE, state] };
  expect(parseManifest(JSON.stringify(manifest), "S0")).toEqual(manifest);
});

test("may contain the VM's UUID and the consistency", () => {
  const named = { ...MANIFEST, vm: "123e4567-e89b-42d3-a456-426614174000", id: "0123456789abcdef" };
  expect(parseManifest(JSON.stringify(named), "S0")).toEqual(named);
});

test("may have no files: a VM without disks", () => {
  expect(parseManifest(JSON.stringify({ ...MANIFEST, files: [] }), "S0").files).toEqual([]);
});

const files = (...changes: object[]): string =>
  JSON.stringify({ ...MANIFEST, files: changes.map((change) => ({ ...FILE, ...change })) });

describe("is damaged (74):", () => {
  test.each([
    ["nothing", ""],
    ["a truncated one", JSON.stringify(MANIFEST).slice(0, 100)],
    ["no JSON", "not json"],
    ["null", "null"],
    ["a number", "7"],
    ["a list", "[]"],
    ["an empty object", "{}"],
    ["no list of files", JSON.stringify({ ...MANIFEST, files: undefined })],
    ["files that are no list", JSON.stringify({ ...MANIFEST, files: { 0: FILE } })],
    ["a file that is null", JSON.stringify({ ...MANIFEST, files: [null] })],
    ["a file that is a text", JSON.stringify({ ...MANIFEST, files: ["disk-0.img"] })],
    ["a file without a name", files({ name: undefined })],
    ["a name with a /", files({ name: "../disk-0.img" })],
    ["a stored name with a /", files({ file: "/etc/passwd" })],
    ["a hidden name", files({ file: ".lock" })],
    ["a length that is not a number", files({ bytes: "300" })],
    ["a negative length", files({ storedBytes: -1 })],
    ["a fractional length", files({ allocatedBytes: 1.5 })],
    ["a huge length", files({ bytes: 1e300 })],
    ["one bad file of two", files({}, { name: 7 })],
    ["a VM that is not a UUID", JSON.stringify({ ...MANIFEST, vm: "../web" })],
    ["an id of another form", JSON.stringify({ ...MANIFEST, id: "0123456789ABCDEF" })],
    ["an unknown consistency", JSON.stringify({ ...MANIFEST, consistency: "perfect" })],
  ])("%s", async (_title, text) => {
    const error = await failureOf(() => parseManifest(text, "backups/S0"));
    expect(error.exitCode).toBe(74);
    expect(error.message).toContain("backups/S0 is damaged");
  });
});

describe("is of a newer version (78):", () => {
  test.each([
    ["version 4", { version: 4 }],
    ["another format", { format: "zst" }],
  ])("%s", async (_title, changes) => {
    const error = await failureOf(() => parseManifest(JSON.stringify({ ...MANIFEST, ...changes }), "S0"));
    expect(error.exitCode).toBe(78);
    expect(error.message).toContain("newer version");
  });
});
