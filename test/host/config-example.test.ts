import { expect, test } from "bun:test";
import { buildDefaults } from "../../src/config/defaults.ts";
import { readAssignments } from "../../src/config/literal.ts";
import { parseSetting, SETTING_NAMES, type SettingName } from "../../src/config/schema.ts";
import { buildExample, refuseOthers } from "../../src/host/config-example.ts";

const HOME = "/home/me";
const example = buildExample("vm");
const read = (text: string) => readAssignments(text, (name) => (name === "HOME" ? HOME : undefined));

test("as it is it says nothing", () => {
  expect(example.split("\n").filter((line) => !/^(#.*)?$/.test(line))).toEqual([]);
  expect(read(example)).toEqual({ kind: "values", assignments: [] });
});

test("uncommented it says each setting once, with its built-in value; but not what makes one VM of all", () => {
  const result = read(example.replaceAll(/^#(?=[A-Z])/gm, ""));
  if (result.kind !== "values") throw new Error(JSON.stringify(result));
  const defaults = buildDefaults({
    prog: "vm",
    home: HOME,
    hostArch: "x86_64",
    libexec: "/usr/libexec/vm",
  });
  const names = result.assignments.map(({ name }) => name);
  const oneVm: SettingName[] = ["GUESTNAME", "ISO", "UUID", "UUID_FORMER"];
  const forAll = SETTING_NAMES.filter((name) => !oneVm.includes(name));
  expect(names.toSorted()).toEqual(forAll.toSorted());
  for (const { name, value } of result.assignments)
    expect(parseSetting(name as SettingName, value), name).toEqual(
      parseSetting(name as SettingName, defaults[name as SettingName]),
    );
});

test("every setting has its group", () => {
  expect(example).not.toContain("--- More");
  expect(example.match(/^# --- /gm)!.length).toBeGreaterThan(5);
});

test("it is of the name it was asked under", () => {
  expect(buildExample("kvm")).toContain("/etc/kvm.conf");
  expect(buildExample("kvm")).toContain("\n#PROFILES=~/kvm\n");
});

test.each([{ json: true }, { name: ["CORES"] }])("%j beside it is refused", (args) => {
  expect(() => refuseOthers({ example: true, ...args })).toThrow("cannot be combined");
  expect(() => refuseOthers({ example: true })).not.toThrow();
});
