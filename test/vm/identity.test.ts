import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { buildDefaults } from "../../src/config/defaults.ts";
import { loadSettings } from "../../src/config/load.ts";
import type { Context } from "../../src/vm/context.ts";
import { showIdentity } from "../../src/lifecycle/renew-identity.ts";
import { carryIdentity, readIdentity, requireUniqueUuid, ensureIdentity } from "../../src/vm/identity.ts";
import type { Work } from "../../src/store/workdir.ts";
import { findGuestEnv } from "../../src/store/workdir.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { sourcesFor } from "../fixtures/sources.ts";

const A = "aaaaaaaa-0000-4000-8000-000000000001";
const B = "bbbbbbbb-0000-4000-8000-000000000002";
const FORM = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

let temp: Temp;
let context: Context;
beforeEach(() => {
  temp = new Temp();
  context = { prog: "vm", cacheDirectory: temp.path("cache") } as Context;
});
afterEach(() => temp[Symbol.dispose]());

const none: Work = { state: "none" };
const present = (dir: string): Work => ({
  state: "present",
  dir,
  inplace: false,
  mark: { vm: 1, created: "" },
});

/** A VM opened for a change, in a directory of that name. */
async function settle(name = "host", work: Work = none) {
  const hostdir = temp.directory(name);
  const guestEnv = findGuestEnv(hostdir, work);
  const loaded = await loadSettings(sourcesFor({ prog: "none", home: temp.top, hostdir, guestEnv }));
  return ensureIdentity(context, { ...loaded, hostdir, work });
}

const text = (...parts: string[]): string => readFileSync(temp.path(...parts, "guest.env"), "utf8");

describe("a VM without a UUID gets one", () => {
  test("in HOSTDIR's guest.env", async () => {
    temp.write("host/guest.env", "MEMORY=1G\n");
    const { settings } = await settle();
    expect(settings.UUID).toMatch(FORM);
    expect(text("host")).toBe(`MEMORY=1G\nUUID="${settings.UUID}"\n`);
    expect((await settle()).settings.UUID).toBe(settings.UUID);
  });

  test("in both, the same", async () => {
    temp.write("host/guest.env", "MEMORY=1G\n");
    temp.write("work/guest.env", "MEMORY=2G\n");
    const { settings } = await settle("host", present(temp.path("work")));
    expect(text("host")).toBe(`MEMORY=1G\nUUID="${settings.UUID}"\n`);
    expect(text("work")).toBe(`MEMORY=2G\nUUID="${settings.UUID}"\n`);
  });

  test.each([
    ["HOSTDIR's", `UUID="${A}"\n`, "MEMORY=2G\n"],
    ["WORKDIR's", "MEMORY=1G\n", `UUID="${A}"\n`],
  ])("which %s already has", async (_title, host, work) => {
    temp.write("host/guest.env", host);
    temp.write("work/guest.env", work);
    expect((await settle("host", present(temp.path("work")))).settings.UUID).toBe(A);
    expect([text("host"), text("work")]).toEqual([
      expect.stringContaining(A) as string,
      expect.stringContaining(A) as string,
    ]);
  });

  test("but not in a missing or empty file, or a symlink", async () => {
    expect((await settle()).settings.UUID).toBe("");
    temp.write("host/guest.env", "");
    // Lost settings are an error by themselves (78).
    expect((await failureOf(() => settle())).exitCode).toBe(78);
    expect(text("host")).toBe("");
    // The active one counts.
    temp.write("work/guest.env", "");
    temp.write("host/guest.env", "MEMORY=1G\n");
    expect((await failureOf(() => settle("host", present(temp.path("work"))))).exitCode).toBe(78);
    expect(text("host")).toBe("MEMORY=1G\n");
  });
});

test("if WORKDIR's guest.env cannot be read, HOSTDIR's is used", () => {
  temp.write("host/guest.env", `UUID="${A}"\nUUID_FORMER=("${B}")\n`);
  temp.write("work/guest.env", "\0\n");
  temp.write("work/.vm.json", '{"vm":1,"created":""}');
  symlinkSync(temp.path("host"), temp.path("work/.host"));
  symlinkSync(temp.path("work"), temp.path("host/.work"));
  expect(readIdentity(temp.path("host"))).toEqual({ uuid: A, former: [B] });
});

test("a default is not an identity", () => {
  const { UUID, UUID_FORMER } = buildDefaults({ prog: "vm", home: "/", hostArch: "x86_64", libexec: "/" });
  expect([UUID, UUID_FORMER]).toEqual(["", []]);
});

const requireUnique = (name: string, uuid = A): void =>
  requireUniqueUuid(context, temp.path(name), uuid, "push snapshots");

describe("a copy", () => {
  beforeEach(async () => {
    temp.write("one/guest.env", `UUID="${A}"\n`);
    await settle("one");
  });

  test("is detected beside the original", async () => {
    temp.write("two/guest.env", `UUID="${A}"\n`);
    const error = await failureOf(() => requireUnique("two"));
    expect(error.exitCode).toBe(78);
    expect(error.message).toContain(temp.path("one"));
    expect(error.hint).toContain("identity --new");
    expect(() => requireUnique("one")).not.toThrow();
  });

  test("not after a move, with a new VM in the old place", async () => {
    renameSync(temp.path("one"), temp.path("two"));
    expect(() => requireUnique("two")).not.toThrow();
    temp.write("one/guest.env", `UUID="${B}"\n`);
    expect(() => requireUnique("one", B)).not.toThrow();
    expect(() => requireUnique("two")).not.toThrow();
  });

  test("not if the other one is gone, or has another UUID", async () => {
    temp.write("two/guest.env", `UUID="${A}"\n`);
    temp.write("one/guest.env", `UUID="${B}"\n`);
    expect(() => requireUnique("two")).not.toThrow();
    rmSync(temp.path("two"), { recursive: true });
    expect(() => requireUnique("three")).not.toThrow();
  });

  test("the other place is read as data", async () => {
    temp.write("two/guest.env", `UUID="${A}"\n`);
    rmSync(temp.path("one/guest.env"));
    Bun.spawnSync(["mkfifo", temp.path("one/guest.env")]);
    expect(() => requireUnique("two")).not.toThrow();
  });

  test("not without a cache", () => {
    context = { ...context, cacheDirectory: undefined } as Context;
    expect(() => requireUnique("two")).not.toThrow();
  });
});

const carryTo = (before: string, own: object, noted?: string): string => {
  mkdirSync(temp.path("stage"), { recursive: true });
  temp.write("stage/guest.env", before);
  carryIdentity(temp.path("stage"), { uuid: undefined, former: [], ...own }, noted);
  return text("stage");
};

describe("carryIdentity", () => {
  test.each<[string, string, object, string | undefined, string | RegExp]>([
    ["the VM's own", `UUID="${B}"\n`, { uuid: A }, B, A],
    ["else the recorded one", "MEMORY=1G\n", {}, B, B],
    ["else guest.env's", `UUID="${B}"\n`, {}, undefined, B],
    ["else a new one", "MEMORY=1G\n", {}, undefined, FORM],
  ])("%s", (_title, before, own, noted, expected) => {
    carryTo(before, own, noted);
    expect(readIdentity(temp.path("stage")).uuid).toMatch(expected);
  });

  test("with the former ones, which the snapshot lacks", () => {
    carryTo(`UUID="${A}"\n`, { uuid: B, former: [A] });
    expect(readIdentity(temp.path("stage"))).toEqual({ uuid: B, former: [A] });
  });

  test("the same text if nothing changes", () => {
    expect(carryTo(`UUID='${A}'`, { uuid: A })).toBe(`UUID='${A}'`);
  });
});

test.each([
  ["empty", "", "it is empty"],
  ["not a list of assignments", "if true; then\n", "plain NAME=value lines only"],
])("showing the identity fails if guest.env is %s: 78", async (_title, content, reason) => {
  const hostdir = temp.directory("host");
  temp.write("host/guest.env", content);
  const error = await failureOf(() => showIdentity({ ...context, hostdir }, false));
  expect(error.exitCode).toBe(78);
  expect(error.message).toContain(reason);
});
