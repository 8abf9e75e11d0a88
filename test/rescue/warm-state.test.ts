import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "bun:test";
import {
  giveUp,
  hasFailed,
  keepState,
  markVolatile,
  openWarmState,
  removeOthers,
  stateName,
  type WarmKey,
} from "../../src/rescue/warm-state.ts";
import { makePipe } from "../../src/process/libc.ts";
import { Temp } from "../fixtures/temp.ts";

function keyOf(temp: Temp): WarmKey {
  temp.write("kernel", "kernel");
  temp.write("initrd", "initrd");
  return {
    profile: "rescue-x86_64",
    argv: ["true", "-m", "1G"],
    qemuVersion: "7.2.0",
    files: [temp.path("kernel"), temp.path("initrd")],
  };
}

describe("the key of a state depends on", () => {
  test.each<[string, (key: WarmKey, temp: Temp) => Partial<WarmKey>]>([
    ["qemu's version", () => ({ qemuVersion: "7.2.1" })],
    ["an argument", () => ({ argv: ["true", "-m", "2G"] })],
    ["qemu itself", () => ({ argv: ["false", "-m", "1G"] })],
    ["the kernel", (_key, temp) => (utimesSync(temp.path("kernel"), 1, 1), {})],
    ["the initramfs", (_key, temp) => (temp.write("initrd", "another"), {})],
    ["the UEFI variables", () => ({ variables: "Boot0001" })],
  ])("%s", (_title, change) => {
    using temp = new Temp();
    const key = keyOf(temp);
    const name = stateName(key);
    expect(name).toMatch(/^rescue-x86_64\.[0-9a-f]{32}$/);
    expect(stateName(key)).toBe(name);
    expect(stateName({ ...key, ...change(key, temp) })).not.toBe(name);
  });
});

/** A state as it is saved, with RAM of 4 KiB. */
function withState(temp: Temp, name = "state"): string {
  const path = temp.path(name);
  mkdirSync(path, { mode: 0o700 });
  for (const [file, text] of [
    ["ram", "x".repeat(RAM_BYTES)],
    ["devices", "x"],
    ["variables", "v"],
  ] as const)
    writeFileSync(join(path, file), text, { mode: 0o600 });
  return path;
}
const RAM_BYTES = 4096;
const isUsable = (path: string): boolean => {
  using state = openWarmState(path, RAM_BYTES);
  return state !== undefined;
};

describe("a state is used only if it is complete, private, and known to be durable", () => {
  test.each<[title: string, change: (path: string) => void, usable: boolean]>([
    ["as it was saved", () => {}, true],
    [
      "a symlink to it",
      (path) => (renameSync(path, `${path}.real`), symlinkSync(`${path}.real`, path)),
      false,
    ],
    ["absent", (path) => rmSync(path, { recursive: true }), false],
    ["of format 1: a file", (path) => (rmSync(path, { recursive: true }), writeFileSync(path, "x")), false],
    ["a directory that others can list", (path) => chmodSync(path, 0o750), false],
    ["RAM that others can read", (path) => chmodSync(join(path, "ram"), 0o640), false],
    ["devices that others can read", (path) => chmodSync(join(path, "devices"), 0o604), false],
    ["RAM of another size", (path) => writeFileSync(join(path, "ram"), "x"), false],
    ["no RAM", (path) => rmSync(join(path, "ram")), false],
    ["no devices", (path) => rmSync(join(path, "devices")), false],
    ["empty devices", (path) => writeFileSync(join(path, "devices"), ""), false],
    ["huge devices", (path) => truncateSync(join(path, "devices"), 65 << 20), false],
    ["RAM that is a link", (path) => relink(join(path, "ram")), false],
    ["devices that are a link", (path) => relink(join(path, "devices")), false],
    ["a named pipe", (path) => (rmSync(join(path, "ram")), makePipe(join(path, "ram"))), false],
    ["saved since this host was booted", (path) => markVolatile(path), true],
    ["saved before a reboot", (path) => writeFileSync(join(path, "boot"), "another"), false],
  ])("%s", (_title, change, usable) => {
    using temp = new Temp();
    const path = withState(temp);
    change(path);
    expect(isUsable(path)).toBe(usable);
  });
});

const relink = (path: string): void => {
  renameSync(path, `${path}.real`);
  symlinkSync(`${path}.real`, path);
};

test("a state that is removed or replaced after it was opened is used whole", () => {
  using temp = new Temp();
  const path = withState(temp);
  using state = openWarmState(path, RAM_BYTES)!;
  rmSync(path, { recursive: true });
  withState(temp);
  writeFileSync(join(path, "ram"), "y".repeat(RAM_BYTES));
  expect(readFileSync(`/proc/self/fd/${state.ram}`, "utf8")).toBe("x".repeat(RAM_BYTES));
  expect(state.variables!.toString()).toBe("v");
});

test("is synced, and valid after a reboot, once the kernel has had time to write it", async () => {
  using temp = new Temp();
  const path = withState(temp);
  markVolatile(path);
  using state = openWarmState(path, RAM_BYTES)!;
  await keepState(path, state);
  expect(readdirSync(path)).toContain("boot");
  utimesSync(join(path, "boot"), Date.now() / 1000 - 61, Date.now() / 1000 - 61);
  await keepState(path, state);
  expect(readdirSync(path).toSorted()).toEqual(["devices", "ram", "variables"]);
});

test("a failed one is removed, and not used again for a day", () => {
  using temp = new Temp();
  const path = temp.write("state", "x");
  expect(hasFailed(path)).toBe(false);
  giveUp(path);
  expect(hasFailed(path)).toBe(true);
  expect(readdirSync(temp.top)).toEqual(["state.failed"]);
  const before = Date.now() / 1000 - 25 * 3600;
  utimesSync(`${path}.failed`, before, before);
  expect(hasFailed(path)).toBe(false);
});

const [A, B, C, D, E] = [..."abcde"].map((letter) => letter.repeat(32));

test.each<[title: string, keep: string, names: string[], kept: string[]]>([
  ["a profile has one state", `r.${B}`, [`r.${A}`, `r.${A}.failed`, `r.${B}`], [`r.${B}`]],
  ["those of other profiles remain", `r.${B}`, [`r.x.${A}`, "other"], ["other", `r.x.${A}`]],
  ["those of UEFI guests remain", `r.${B}`, [`r.${A}.${C}`], [`r.${A}.${C}`]],
  ["a UEFI guest's leaves that of others", `r.${A}.${C}`, [`r.${B}`], [`r.${B}`]],
  [
    "of UEFI guests the three used last remain",
    `r.${A}.${B}`,
    [`r.${A}.${B}`, `r.${A}.${C}`, `r.${A}.${D}`, `r.${A}.${E}`],
    [`r.${A}.${B}`, `r.${A}.${D}`, `r.${A}.${E}`],
  ],
  ["another firmware's are removed", `r.${A}.${C}`, [`r.${B}.${C}`, `r.${B}.${C}.failed`], []],
])("%s", (_title, keep, all, kept) => {
  using temp = new Temp();
  all.forEach((name, index) => {
    if (name.endsWith(".failed")) temp.write(name, "");
    else mkdirSync(temp.path(name));
    utimesSync(temp.path(name), 1000 + index, 1000 + index);
  });
  removeOthers(temp.top, "r", keep);
  expect(readdirSync(temp.top).toSorted()).toEqual(kept);
});

test("a state of format 1 is removed with the first of this one", () => {
  using temp = new Temp();
  temp.write(`r.${A}`, "");
  mkdirSync(temp.path(`r.${B}.${C}`));
  removeOthers(temp.top, "r", `r.${B}.${C}`);
  expect(readdirSync(temp.top)).toEqual([`r.${B}.${C}`]);
});
