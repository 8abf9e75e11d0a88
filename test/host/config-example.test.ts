import { expect, test } from "bun:test";
import { buildDefaults } from "../../src/config/defaults.ts";
import { readAssignments } from "../../src/config/literal.ts";
import { parseSetting, SETTING_NAMES, type SettingName } from "../../src/config/schema.ts";
import { buildExample, refuseOthers } from "../../src/host/config-example.ts";

const HOME = "/home/me";
const example = buildExample("vm");
const read = (text: string) => readAssignments(text, (name) => (name === "HOME" ? HOME : undefined));

test("unchanged, it sets nothing", () => {
  expect(example.split("\n").filter((line) => !/^(#.*)?$/.test(line))).toEqual([]);
  expect(read(example)).toEqual({ kind: "values", assignments: [] });
});

test("uncommented, it sets each setting once to its default, except those of one VM", () => {
  const result = read(example.replaceAll(/^#(?=[A-Z])/gm, ""));
  if (result.kind !== "values") throw new Error(JSON.stringify(result));
  const defaults = buildDefaults({
    prog: "vm",
    home: HOME,
    hostArch: "x86_64",
    libexec: "/usr/libexec/vm",
  });
  const names = result.assignments.map(({ name }) => name);
  const oneVm: SettingName[] = ["GUESTNAME", "ISO", "UUID", "UUID_FORMER", "TEMPLATE", "LAYOUT", "MAC"];
  const forAll = SETTING_NAMES.filter((name) => !oneVm.includes(name));
  expect(names.toSorted()).toEqual(forAll.toSorted());
  for (const { name, value } of result.assignments)
    expect(parseSetting(name as SettingName, value), name).toEqual(
      parseSetting(name as SettingName, defaults[name as SettingName]),
    );
});

test("every setting has a group", () => {
  const [, more = ""] = example.split("# --- More\n");
  expect(Array.from(more.matchAll(/^#([A-Z_]+)=/gm), ([, name]) => name)).toEqual([]);
  expect(example.match(/^# --- /gm)!.length).toBeGreaterThan(5);
});

test("uses the program's name", () => {
  expect(buildExample("kvm")).toContain("/etc/kvm.conf");
  expect(buildExample("kvm")).toContain("\n#PROFILES=~/kvm\n");
});

test.each([{ json: true }, { name: ["CORES"] }])("rejects %j as well", (args) => {
  expect(() => refuseOthers({ example: true, ...args })).toThrow("cannot be combined");
  expect(() => refuseOthers({ example: true })).not.toThrow();
});
