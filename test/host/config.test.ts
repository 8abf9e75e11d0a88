import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { buildDefaults } from "../../src/config/defaults.ts";
import { loadSettings, readSettings } from "../../src/config/load.ts";
import { type Sources } from "../../src/config/load-layer.ts";
import { type Origin } from "../../src/config/origin.ts";
import type { SettingValue } from "../../src/config/shell-expand.ts";
import { readAssignments } from "../../src/config/literal.ts";
import { SETTING_NAMES, type RawSettings, type SettingName } from "../../src/config/schema.ts";
import { formatConfig, parseNames } from "../../src/host/config.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { sourcesFor } from "../fixtures/sources.ts";

let temp: Temp;
beforeEach(() => {
  temp = new Temp();
  temp.directory("home/.config");
});
afterEach(() => temp[Symbol.dispose]());

const sources = (changes: Partial<Sources> = {}): Sources =>
  sourcesFor({
    home: temp.path("home"),
    hostdir: temp.top,
    ...changes,
  });

const conf = (text: string): string => temp.write("home/.config/vm-unit-test.conf", text);

describe("continues after errors:", () => {
  test("valid settings are read, and one error lists the others", async () => {
    const user = conf("CORES=many\nMEMORY=3G\n");
    const guestEnv = temp.write("guest.env", "SOCKETS=2\nPORT=99999\n");
    const { raw, error } = await readSettings(sources({ guestEnv }));
    expect(raw).toMatchObject({ MEMORY: "3G", SOCKETS: "2", CORES: "many", PORT: "99999" });
    expect(error?.exitCode).toBe(78);
    for (const place of [`${user}:1: `, `${guestEnv}:2: `]) expect(error?.message).toContain(place);
  });

  test("ignores a file that cannot be parsed", async () => {
    conf("MEMORY=3G\nCORES='\n");
    const { raw, error } = await readSettings(sources({ options: { SOCKETS: "4" } }));
    expect(raw).toMatchObject({ MEMORY: "2G", SOCKETS: "4" });
    expect(error?.exitCode).toBe(78);
  });

  test("ignores a file that cannot be read", async () => {
    temp.write("guest.env", Buffer.from("GUESTNAME=\xFF\n", "latin1"));
    conf("MEMORY=3G\n");
    const { raw, error } = await readSettings(sources({ guestEnv: temp.path("guest.env") }));
    expect(raw.MEMORY).toBe("3G");
    expect(error?.message).toContain("UTF-8");
  });

  test("a host of another architecture", async () => {
    const { raw, error } = await readSettings(sources({ hostArch: "s390x" }));
    expect(raw.QEMUARCH).toBe("s390x");
    expect(error?.exitCode).toBe(69);
  });

  test("an error contains no secret", async () => {
    conf(`SPICE_PASSWORD=${"x".repeat(61)}\n`);
    const { message, exitCode } = await failureOf(() => loadSettings(sources()));
    expect(exitCode).toBe(78);
    expect(message).toContain(":1: SPICE_PASSWORD='…' is not allowed");
  });
});

async function originAfter(text: string): Promise<Origin> {
  conf(text);
  const additions = { FORWARDS: ["tcp::1-:2"] };
  const { origins } = await readSettings(sources({ additions, spelled: { FORWARDS: "--forward" } }));
  return origins.FORWARDS;
}

describe("a list with additions from the command line", () => {
  test("is attributed to the file, too", async () => {
    expect(await originAfter("FORWARDS=tcp::3-:4\n")).toMatchObject({ kind: "file", line: 1, added: true });
  });
  test("is attributed to the command line alone if it was empty", async () => {
    expect(await originAfter("")).toEqual({ kind: "option", option: "--forward" });
  });
});

/** Values other than the defaults, of every form. */
const VALUES: [title: string, raw: RawSettings][] = [
  ["none", {}],
  ["plain ones", { CORES: "4", GUESTNAME: "WS10", UEFI: "1", PORT: "", TIMEOUT: "5", RESCUE: "mine" }],
  ["awkward ones", { GUESTNAME: `it's "$HOME" \`x\` \\ # é`, ISO: " ~/a b.iso ", CPU: "max,erms=off" }],
  ["of several lines", { GUESTNAME: "two\nlines\n" }],
  ["lists", { IMAGES: ["VIRT=/a b.img", "NVME=raw=@MEDIA@/x"], FORWARDS: ["tcp::1-:2", "tcp::3-:4"] }],
  ["short lists over long ones", { SHARES: ["a:/x"], RESCUE_SHARES: [], SSHKEYS: ["/k y"] }],
  ["lists in one word", { DISKS: "AHCI=1G,NVME=2G", IMAGES: "VIRT=/x", FORWARDS: "tcp::1-:2,tcp::3-:4" }],
  ["lists with empty words", { SHARES: ["", "a:/x", ""], SSHKEYS: [""] }],
  ["empty where a list is usual", { DISKS: "", SHARES: "" }],
];

describe("printed settings can be read again:", () => {
  test.each(VALUES)("%s", async (_title, options) => {
    const { raw, origins } = await readSettings(sources({ options }));
    const text = formatConfig(SETTING_NAMES, { raw, origins }, buildDefaults(sources()));
    const read = readAssignments(text, () => undefined);
    expect(read.kind).toBe("values");
    const { settings } = await loadSettings(sources({ options }));
    conf(text);
    expect((await loadSettings(sources())).settings).toEqual(settings);
  });
});

const shown = (name: SettingName, raw: SettingValue, origin: Origin): string =>
  formatConfig(
    [name],
    {
      raw: { ...buildDefaults(sources()), [name]: raw },
      origins: { [name]: origin } as Record<SettingName, Origin>,
    },
    buildDefaults(sources()),
  );

describe("a line", () => {
  test.each<[SettingName, SettingValue, Origin, string]>([
    ["CORES", "2", { kind: "default" }, "CORES=2  # built-in default\n"],
    ["CORES", "2", { kind: "file", file: "/etc/vm.conf", line: 3 }, "CORES=2  # /etc/vm.conf:3\n"],
    ["CORES", "2", { kind: "option", option: "--cores" }, "CORES=2  # --cores\n"],
    ["CORES", "2", { kind: "option" }, "CORES=2  # command line\n"],
    ["CORES", "2", { kind: "file", file: "/a\nb", line: 1 }, "CORES=2  # /a?b:1\n"],
    [
      "SHARES",
      ["a:/x"],
      { kind: "default", added: true },
      "SHARES=( a:/x )  # built-in default, and the command line\n",
    ],
    ["SPICE_PASSWORD", "hunter2", { kind: "file", file: "/f", line: 1 }, "# SPICE_PASSWORD is set  # /f:1\n"],
    ["SPICE_PASSWORD", "", { kind: "default" }, "# SPICE_PASSWORD is not set  # built-in default\n"],
    ["SPICE_PASSWORD", "", { kind: "environment" }, "# SPICE_PASSWORD is set  # environment\n"],
  ])("%s=%j, %j", (name, raw, origin, line) => {
    expect(shown(name, raw, origin)).toBe(line);
  });

  test("has its comment aligned with the others", async () => {
    const { raw, origins } = await readSettings(sources({ options: { GUESTNAME: "a\nb" } }));
    const names: SettingName[] = ["CORES", "SPICE_TICKETING", "GUESTNAME", "SSHKEYS", "RESCUE_SHARES"];
    const lines = formatConfig(names, { raw, origins }, buildDefaults(sources())).split("\n");
    const columns = lines.map((line) => line.indexOf("  # ")).filter((at) => at >= 0 && at <= 48);
    expect(lines.filter((line) => line.startsWith("b'"))).toHaveLength(1);
    expect(new Set(lines.slice(0, 2).map((line) => line.search(/# b/))).size).toBe(1);
    expect(columns.length).toBeGreaterThan(0);
  });
});

describe("names", () => {
  test.each([
    ["MEMRY", "MEMORY"],
    ["memory", "MEMORY"],
    ["CORE", "CORES"],
  ])("%s: did you mean %s?", async (word, meant) => {
    const { exitCode, hint } = await failureOf(() => parseNames([word]));
    expect(exitCode).toBe(64);
    expect(hint).toContain(`did you mean ${meant}?`);
  });

  test("exact names are accepted", () => {
    expect(parseNames(["CORES", "MEMORY"])).toEqual(["CORES", "MEMORY"]);
    expect(parseNames()).toEqual([]);
  });
});
