import { chmodSync, symlinkSync, utimesSync } from "node:fs";
import { describe, expect, test } from "bun:test";
import {
  giveUp,
  hasFailed,
  isTrusted,
  removeOthers,
  stateName,
  type WarmKey,
} from "../../src/rescue/warm-state.ts";
import { Temp } from "../fixtures/temp.ts";
import { readdirSync } from "node:fs";

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
  ])("%s", (_title, change) => {
    using temp = new Temp();
    const key = keyOf(temp);
    const name = stateName(key);
    expect(name).toMatch(/^rescue-x86_64\.[0-9a-f]{32}$/);
    expect(stateName(key)).toBe(name);
    expect(stateName({ ...key, ...change(key, temp) })).not.toBe(name);
  });
});

test("only a private file of this user is used", () => {
  using temp = new Temp();
  const path = temp.write("state", "x");
  expect(isTrusted(path)).toBe(true);
  symlinkSync(path, temp.path("link"));
  expect(isTrusted(temp.path("link"))).toBe(false);
  expect(isTrusted(temp.path("absent"))).toBe(false);
  chmodSync(path, 0o640);
  expect(isTrusted(path)).toBe(false);
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

test("a profile has one state; those of others are kept", () => {
  using temp = new Temp();
  const [old, now] = ["a".repeat(32), "b".repeat(32)];
  for (const name of [`r.${old}`, `r.${old}.failed`, `r.${now}`, `r.x.${old}`, "other"]) temp.write(name, "");
  removeOthers(temp.top, "r", `r.${now}`);
  expect(readdirSync(temp.top).toSorted()).toEqual(["other", `r.${now}`, `r.x.${old}`].toSorted());
});
