import { chmodSync, chownSync, symlinkSync } from "node:fs";
import { describe, expect, test } from "bun:test";
import { BUNDLED_JOBS } from "../../src/rescue/bundled-jobs.ts";
import { findInstalledLibexec } from "../../src/rescue/libexec.ts";
import { Temp } from "../fixtures/temp.ts";

const isRoot = process.getuid!() === 0;

/** A program in a prefix of its own; data files in the given places. */
function installed(temp: Temp, ...places: string[]): { find: () => string | undefined } {
  temp.write("prefix/bin/vm", "", 0o755);
  for (const place of places) for (const name of BUNDLED_JOBS) temp.write(`${place}/jobs/${name}.job`, "");
  return { find: () => findInstalledLibexec(temp.path("prefix/bin/vm"), temp.path("system/vm")) };
}

const OWN = "prefix/libexec/vm";
const SYSTEM = "system/vm";

describe("installed data files:", () => {
  test.each<[places: string[], found: string | undefined]>([
    [[], undefined],
    [[SYSTEM], SYSTEM],
    [[OWN], OWN],
    [[SYSTEM, OWN], OWN],
  ])("of %j: %p", (places, found) => {
    using temp = new Temp();
    const { find } = installed(temp, ...places);
    expect(find()).toBe(found && temp.path(found));
  });

  test.each([`${OWN}/jobs`, OWN, "prefix/libexec", "prefix"])("ignored if others can write %s", (place) => {
    using temp = new Temp();
    const { find } = installed(temp, OWN, SYSTEM);
    chmodSync(temp.path(place), 0o777);
    expect(find()).toBe(temp.path(SYSTEM));
    chmodSync(temp.path(place), 0o775);
    expect(find()).toBe(temp.path(SYSTEM));
  });

  test("accepted below a sticky directory such as /tmp", () => {
    using temp = new Temp();
    const { find } = installed(temp, OWN);
    chmodSync(temp.path("prefix"), 0o1777);
    expect(find()).toBe(temp.path(OWN));
  });

  (isRoot ? test : test.skip)("not where somebody else owns a directory on the way", () => {
    using temp = new Temp();
    const { find } = installed(temp, OWN);
    chownSync(temp.path("prefix/libexec"), 65534, 65534);
    expect(find()).toBeUndefined();
  });

  test("jobs must not be a symlink; the whole directory may be one", () => {
    using temp = new Temp();
    const { find } = installed(temp, "elsewhere");
    temp.directory("prefix/libexec");
    symlinkSync(temp.path("elsewhere"), temp.path(OWN));
    expect(find()).toBe(temp.path("elsewhere"));
    temp.directory("system/vm");
    symlinkSync(temp.path("elsewhere/jobs"), temp.path("system/vm/jobs"));
    expect(findInstalledLibexec("/nowhere/bin/vm", temp.path("system/vm"))).toBeUndefined();
  });

  test("ignored if a bundled job is missing", () => {
    using temp = new Temp();
    const { find } = installed(temp);
    temp.write(`${OWN}/jobs/${BUNDLED_JOBS[0]}.job`, "");
    expect(find()).toBeUndefined();
  });
});
