import { describe, expect, spyOn, test } from "bun:test";
import { mkdirSync, openSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as libc from "../../src/process/libc.ts";
import { lockProfiles, recoverProfile, replaceProfile } from "../../src/job/rescue-profile.ts";
import { PARTIAL } from "../../src/store/layout.ts";
import { Temp } from "../fixtures/temp.ts";

/** PROFILES with the profile `r`, and a new one beside it. */
function setUp(temp: Temp, old: Record<string, string>, fresh: Record<string, string>): string {
  const beside = temp.directory(`${PARTIAL}r`);
  temp.directory("r");
  for (const [name, text] of Object.entries(old)) temp.write(`r/${name}`, text);
  for (const [name, text] of Object.entries(fresh)) writeFileSync(join(beside, name), text);
  return beside;
}

const contentOf = (dir: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(dir)
      .toSorted()
      .map((name) => [name, readFileSync(join(dir, name), "utf8")]),
  );

const OLD = { "guest.env": "old", vmlinuz: "old", vmlinux: "old", "initrd.img": "old" };
const NEW = { "guest.env": "new", vmlinuz: "new", vmlinux: "new", "initrd.img": "new" };

describe.each(["exchanged", "renamed"])("a rebuilt profile, %s,", (how) => {
  const exchanging = <T>(work: () => Promise<T>): Promise<T> => {
    if (how === "exchanged") return work();
    const cannot = spyOn(libc, "exchange").mockImplementation(() => false);
    return work().finally(() => cannot.mockRestore());
  };

  test("is another directory: processes keep reading their open files", async () => {
    using temp = new Temp();
    const beside = setUp(temp, OLD, NEW);
    const before = statSync(temp.path("r")).ino;
    const opened = openSync(temp.path("r/initrd.img"), "r");
    await exchanging(() => replaceProfile(temp.top, "r", beside));
    expect(contentOf(temp.path("r"))).toEqual(NEW);
    expect(statSync(temp.path("r")).ino).not.toBe(before);
    expect(readFileSync(opened, "utf8")).toBe("old");
  });

  test("keeps the user's own files, but no uncompressed kernel of the old one", async () => {
    using temp = new Temp();
    const { vmlinux: _none, ...fresh } = NEW;
    const beside = setUp(temp, { ...OLD, "source.iso": "mine" }, fresh);
    await exchanging(() => replaceProfile(temp.top, "r", beside));
    expect(contentOf(temp.path("r"))).toEqual({ ...fresh, "source.iso": "mine" });
  });
});

test("the next build undoes a build that was killed between two renames", async () => {
  using temp = new Temp();
  setUp(temp, OLD, NEW);
  renameSync(temp.path("r"), temp.path(`${PARTIAL}r.before`));
  recoverProfile(temp.top, "r");
  expect(contentOf(temp.path("r"))).toEqual(OLD);
  // One killed after both renames is complete.
  mkdirSync(temp.path(`${PARTIAL}r.before`));
  recoverProfile(temp.top, "r");
  expect(readdirSync(temp.top).toSorted()).toEqual([`${PARTIAL}r`, "r"]);
});

test("of two builds, one waits for the other", async () => {
  using temp = new Temp();
  const order: string[] = [];
  const build = async (name: string): Promise<void> => {
    using _lock = await lockProfiles(temp.top, name);
    order.push(`${name} begins`);
    await Bun.sleep(80);
    order.push(`${name} ends`);
  };
  await Promise.all([build("a"), build("b")]);
  expect(order).toEqual(["a begins", "a ends", "b begins", "b ends"]);
});
