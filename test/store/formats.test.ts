/** Files of earlier versions, kept in test/fixtures/formats: they stay readable, and newer ones are refused. */
import { copyFileSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "bun:test";
import { loadSettings, type Loaded } from "../../src/config/load.ts";
import { GUEST_FORMAT } from "../../src/config/guest-format.ts";
import { parseManifest } from "../../src/store/manifest.ts";
import { readMark } from "../../src/store/mark.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { sourcesFor } from "../fixtures/sources.ts";

const FORMATS = resolve(import.meta.dir, "../fixtures/formats");
const read = (name: string): string => readFileSync(join(FORMATS, name), "utf8");

const load = (guestEnv: string): Promise<Loaded> => loadSettings(sourcesFor({ hostdir: FORMATS, guestEnv }));

/** The settings of each. */
const SETTINGS: Record<string, object> = {
  "earlier-program.env": {
    GUESTNAME: "WS10",
    QEMUARCH: "i386",
    CORES: 4,
    MEMORY: 4096,
    UEFI: true,
    PORT: 5905,
    FORWARDS: ["hostfwd=tcp::5555-:22", "hostfwd=udp::5353-:53"],
    IMAGES: [
      { bus: "AHCI", format: "qcow2", path: "disk-0.img" },
      { bus: "NVME", format: undefined, path: "disk-1.img" },
    ],
  },
  "without-number.env": {
    GUESTNAME: 'a "name" with $ and `',
    SOCKETS: 2,
    KEEPCD: true,
    USENETDEV: false,
    PORT: undefined,
    SHARES: [],
    ACCEL: "tcg",
  },
  "format-1.env": { GUESTNAME: "G", QEMUARCH: "aarch64", UEFI: true, CPU: "cortex-a72" },
};

test.each(Object.entries(SETTINGS))("%s", async (name, settings) => {
  expect((await load(join(FORMATS, name))).settings).toMatchObject(settings);
});

const MANIFESTS: Record<string, object> = {
  "gz-first.json": { format: "gz", guest: "WS10", consistency: "offline", firstTime: false },
  "gz-unused.json": { format: "gz", guest: "", consistency: "offline", firstTime: true, files: [] },
  "qcow2-changes.json": { format: "qcow2", parent: "S0", consistency: "crash-consistent" },
};

test.each(Object.entries(MANIFESTS))("%s", (name, manifest) => {
  expect(parseManifest(read(name), "S1")).toMatchObject(manifest);
});

test("first.mark.json", () => {
  using temp = new Temp();
  copyFileSync(join(FORMATS, "first.mark.json"), temp.path(".vm.json"));
  expect(readMark(temp.top)).toMatchObject({ created: "2026-11-25T10:00:00.000Z", lastRun: "powered-off" });
});

test("refuses newer ones (78), whatever else they contain", async () => {
  using temp = new Temp();
  copyFileSync(join(FORMATS, "newer.mark.json"), temp.path(".vm.json"));
  for (const attempt of [
    () => load(join(FORMATS, "newer.env")),
    () => parseManifest(read("newer.json"), "S1"),
    () => readMark(temp.top),
  ]) {
    const error = await failureOf(attempt);
    expect(error.exitCode).toBe(78);
    expect(error.message).toContain("newer version");
    expect(error.hint).toContain("use that version");
  }
});

test.each([
  [`VM_FORMAT=${GUEST_FORMAT + 1}`, false],
  [`VM_FORMAT='${GUEST_FORMAT + 1}' # new`, false],
  [`  VM_FORMAT="10"`, false],
  ["VM_FORMAT=1.5", false],
  ["VM_FORMAT=new", false],
  [`VM_FORMAT="${GUEST_FORMAT}"`, true],
  [`VM_FORMAT=""`, true],
  ["VM_FORMAT=0", true],
  ["# VM_FORMAT=9", true],
  ['GUESTNAME="\nx\n"', true],
])("%j: %p", async (text, good) => {
  using temp = new Temp();
  const file = temp.write("guest.env", `${text}\nCORES=3\n`);
  if (good) expect((await load(file)).settings.CORES).toBe(3);
  else expect((await failureOf(() => load(file))).exitCode).toBe(78);
});

test("reads every kept file", () => {
  const known = [...Object.keys(SETTINGS), ...Object.keys(MANIFESTS), "first.mark.json"];
  expect(
    readdirSync(FORMATS)
      .filter((name) => !name.startsWith("newer."))
      .toSorted(),
  ).toEqual(known.toSorted());
});
