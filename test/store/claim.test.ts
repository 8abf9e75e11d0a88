import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { lstatSync, mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { claimFiles, refuseStrayDisks } from "../../src/store/claim.ts";
import { readMark, updateMark } from "../../src/store/mark.ts";
import { resolveWork, type Workdir } from "../../src/store/workdir.ts";
import { JOB_NAMES, RUN_NAMES } from "../../src/store/working-names.ts";
import { failureOf } from "../fixtures/failure.ts";
import { NONE, Place } from "./working-files.ts";

let place: Place;
beforeEach(() => {
  place = new Place();
});
afterEach(() => place[Symbol.dispose]());

const work = (): Workdir => resolveWork(place.host) as Workdir;

/** Names of the user's files that the program also uses. */
const USERS = [
  "known_hosts",
  "console.log",
  ".in",
  ".out",
  "efivars.bin",
  "vm-seed.img",
  "run-vm.sh",
  "disk-3.img",
];

describe("files in HOSTDIR that no mark names are neither removed nor overwritten:", () => {
  test.each(USERS)("in place, %s refuses new working files (73)", async (name) => {
    place.write(`host/${name}`, "mine");
    const error = await failureOf(() => place.stage("new", "inplace"));
    expect(error.exitCode).toBe(73);
    expect(error.message).toContain(name);
    expect(error.hint).toMatch(/adopt them.*: .*adopt/);
    expect(readFileSync(place.path("host", name), "utf8")).toBe("mine");
    expect(place.names().host).toEqual([name]);
  });

  test("lists all of them", async () => {
    for (const name of USERS) place.write(`host/${name}`, "mine");
    const error = await failureOf(() => place.stage("new", "inplace"));
    for (const name of USERS) expect(error.message).toContain(name);
  });

  test.each(["known_hosts", "console.log", "qemu.log", "screen.ppm", "efivars.bin", "spice.password"])(
    "%s refuses a run in place (73)",
    async (name) => {
      place.make("x", "inplace");
      place.write(`host/${name}`, "mine");
      const error = await failureOf(() => claimFiles(work(), RUN_NAMES));
      expect(error.exitCode).toBe(73);
      expect(error.message).toContain(name);
      expect(readFileSync(place.path("host", name), "utf8")).toBe("mine");
    },
  );

  test("later runs in place own what the first has claimed, and nothing else", () => {
    place.make("x", "inplace");
    claimFiles(work(), RUN_NAMES);
    place.write("host/console.log", "printed");
    claimFiles(work(), RUN_NAMES);
    expect(new Set(readMark(place.host)?.owns)).toEqual(new Set(["disk-0.img", "FIRSTTIME", ...RUN_NAMES]));
  });

  test("with the mark of an earlier version all names are owned", () => {
    place.make("x", "inplace");
    updateMark(place.host, { owns: undefined });
    place.write("host/console.log", "printed");
    claimFiles(work(), RUN_NAMES);
    expect(readMark(place.host)?.owns).toBeUndefined();
  });

  test("in TMPDIR there are none", () => {
    place.write("host/console.log", "mine");
    const dir = place.make("x", "tmp");
    claimFiles(work(), RUN_NAMES);
    expect(readMark(dir)?.owns).toBeUndefined();
  });
});

describe.each(["tmp", "inplace"] as const)("a symlink instead of a working file (%s)", (where) => {
  let dir: string;
  beforeEach(() => {
    place.write("precious/file", "mine");
    dir = place.make("x", where);
    updateMark(dir, { owns: where === "inplace" ? [...RUN_NAMES, ...JOB_NAMES, "disk-0.img"] : undefined });
  });

  test.each([
    "console.log",
    "rescue.log",
    "qemu.log",
    "screen.ppm",
    "events.out",
    "run-vm.sh",
    "spice.password",
    "spice.vv",
  ])("is removed if the file is rewritten: %s", (name) => {
    symlinkSync(place.path("precious/file"), join(dir, name));
    claimFiles(work(), [...RUN_NAMES, ...JOB_NAMES]);
    expect(lstatSync(join(dir, name), { throwIfNoEntry: false })).toBeUndefined();
    expect(readFileSync(place.path("precious/file"), "utf8")).toBe("mine");
  });

  test.each([".out", ".in", "known_hosts", "efivars.bin"])("else is refused: %s (74)", async (name) => {
    symlinkSync(place.path(name.startsWith(".") ? "precious" : "precious/file"), join(dir, name));
    const error = await failureOf(() => claimFiles(work(), RUN_NAMES));
    expect(error.exitCode).toBe(74);
    expect(error.message).toContain(join(dir, name));
  });

  test("is removed if a job empties the directory", () => {
    symlinkSync(place.path("precious"), join(dir, ".out"));
    claimFiles(work(), JOB_NAMES, true);
    expect(lstatSync(join(dir, ".out"), { throwIfNoEntry: false })).toBeUndefined();
    expect(place.has("precious/file")).toBe(true);
  });

  test("is refused like a pipe, and like a directory instead of a log", async () => {
    Bun.spawnSync(["mkfifo", join(dir, "console.log")]);
    claimFiles(work(), RUN_NAMES);
    expect(lstatSync(join(dir, "console.log"), { throwIfNoEntry: false })).toBeUndefined();
    mkdirSync(join(dir, "console.log"));
    expect((await failureOf(() => claimFiles(work(), RUN_NAMES))).exitCode).toBe(74);
  });
});

test("disks in HOSTDIR without .work refuse a restore (73): they may be newer", async () => {
  refuseStrayDisks(place.host, NONE, "run");
  place.write("host/disk-0.img", "newer");
  const error = await failureOf(() => refuseStrayDisks(place.host, NONE, "run"));
  expect(error.exitCode).toBe(73);
  expect(error.message).toContain("disk-0.img");
  expect(error.hint).toMatch(/adopt them.*: .*adopt/);
  place.make("x", "tmp");
  refuseStrayDisks(place.host, work(), "restore");
});
