import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { probeQemu } from "../../src/qemu/probe.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

let temp: Temp;
let qemu: string;
beforeEach(() => {
  temp = new Temp();
  qemu = temp.path("qemu");
});
afterEach(() => temp[Symbol.dispose]());

const GREETING = '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": []}}';
const DEVICES = '{"return": [{"name": "VGA"}, {"name": "virtio-9p-pci"}], "id": 1}';
const SPICE = '{"return": [{"parameters": [{"name": "password-secret"}], "option": "spice"}], "id": 2}';
const VNC = SPICE.replace("spice", "vnc").replace('"id": 2', '"id": 4');
const NO_SPICE = '{"return": [{"parameters": [], "option": "spice"}], "id": 2}';
const SANDBOX =
  '{"return": [{"parameters": [{"name": "spawn"}, {"name": "elevateprivileges"}], "option": "sandbox"}], "id": 3}';
const IO_URING = '{"return": {}, "id": 5}';
const SCHEMA =
  '{"return": [{"meta-type": "enum", "members": [{"name": "threads"}, {"name": "native"}]}, {}], "id": 6}';
const WHOLE = [GREETING, '{"return": {}, "id": 0}', DEVICES, SPICE, SANDBOX, VNC, IO_URING, SCHEMA];

/** A qemu that prints these lines and records each start. */
function install(lines: string[], rest = ""): void {
  writeFileSync(
    qemu,
    `#!/bin/sh\necho x >>'${temp.path("starts")}'\ncat >/dev/null\ncat <<'EOF'\n${lines.join("\n")}\nEOF\n${rest}\n`,
  );
  chmodSync(qemu, 0o755);
}

const starts = (): number => readFileSync(temp.path("starts"), "utf8").length / 2;

describe("probeQemu", () => {
  test("parses the answers", async () => {
    install(WHOLE);
    expect(await probeQemu(qemu, undefined)).toEqual({
      version: "7.2.22",
      devices: new Set(["VGA", "virtio-9p-pci"]),
      spice: true,
      sandbox: true,
      vnc: true,
      ioUring: true,
      nativeAio: true,
    });
  });

  test.each([
    ["no SPICE options", [GREETING, DEVICES, NO_SPICE]],
    ["an error about SPICE", [GREETING, DEVICES, '{"error": {"class": "X", "desc": "no option"}, "id": 2}']],
    ["no answer about SPICE", [GREETING, DEVICES]],
  ])("%s: no SPICE", async (_title, lines) => {
    install(lines);
    expect(await probeQemu(qemu, undefined)).toMatchObject({ spice: false, vnc: false });
  });

  test.each([
    ["an option without parameters", '{"return": [{"parameters": [], "option": "sandbox"}], "id": 3}'],
    ["an error", '{"error": {"class": "GenericError", "desc": "Invalid option"}, "id": 3}'],
  ])("%s: no sandbox", async (_title, line) => {
    install([GREETING, DEVICES, SPICE, line]);
    expect((await probeQemu(qemu, undefined)).sandbox).toBe(false);
  });

  test.each([
    [
      "built without it",
      `{"error": {"class": "GenericError", "desc": "Invalid parameter 'io_uring'"}, "id": 5}`,
    ],
    [
      "forbidden by the kernel",
      '{"error": {"class": "GenericError", "desc": "Unable to use io_uring"}, "id": 5}',
    ],
    ["not answered", ""],
  ])("io_uring %s: none", async (_title, line) => {
    install([GREETING, DEVICES, line]);
    expect((await probeQemu(qemu, undefined)).ioUring).toBe(false);
  });

  test.each([
    ["nothing", []],
    ["a greeting only", [GREETING]],
    ["an error for the devices", [GREETING, '{"error": {"class": "X", "desc": "no"}, "id": 1}']],
    ["something other than QMP", ["Welcome to the wrapper of qemu!"]],
  ])("that answers with %s is unusable (69)", async (_title, lines) => {
    install(lines, "echo 'qemu: broken' >&2; exit 1");
    const error = await failureOf(() => probeQemu(qemu, undefined));
    expect(error.exitCode).toBe(69);
    expect(error.message).toContain("qemu: broken");
  });

  test("that does not exist is not installed (69)", async () => {
    const error = await failureOf(() => probeQemu("qemu-system-none", undefined));
    expect(error.exitCode).toBe(69);
    expect(error.message).toContain("qemu-system-none is not installed");
  });
});

describe("the cached answers", () => {
  test("are in a private file, until qemu changes", async () => {
    install(WHOLE);
    const cache = temp.path("cache", "vm");
    const first = await probeQemu(qemu, cache);
    expect(await probeQemu(qemu, cache)).toEqual(first);
    expect(starts()).toBe(1);
    const [name = ""] = readdirSync(cache);
    expect(statSync(temp.path("cache", "vm", name)).mode & 0o777).toBe(0o600);
    install([GREETING.replace("22", "23"), ...WHOLE.slice(1)], "# newer");
    expect((await probeQemu(qemu, cache)).version).toBe("7.2.23");
    expect(starts()).toBe(2);
  });

  test.each([
    "",
    "{",
    "{}",
    "[]",
    "null",
    '{"version":"7","devices":"x"}',
    '{"version":"7","devices":[],"spice":true}',
  ])("are not used if damaged: %s", async (text) => {
    install(WHOLE);
    const cache = temp.path("cache");
    const known = await probeQemu(qemu, cache);
    writeFileSync(temp.path("cache", readdirSync(cache)[0]!), text);
    expect(await probeQemu(qemu, cache)).toEqual(known);
  });

  test("are not written if that is impossible", async () => {
    install(WHOLE);
    expect((await probeQemu(qemu, temp.write("file", ""))).version).toBe("7.2.22");
  });
});
