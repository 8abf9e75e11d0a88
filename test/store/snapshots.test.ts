import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, symlinkSync, utimesSync, rmSync } from "node:fs";
import {
  findSnapshot,
  listSnapshots,
  makeBackups,
  nameTaken,
  nextSnapshotName,
  validateSnapshotName,
} from "../../src/store/snapshots.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

let temp: Temp;
beforeEach(() => {
  temp = new Temp();
});
afterEach(() => temp[Symbol.dispose]());

/** Snapshots of these names, each a minute after the one before. */
function snapshots(...names: string[]): void {
  for (const [index, name] of names.entries())
    temp.write(`backups/${name}/TS`, `2024-01-02 03:${String(index).padStart(2, "0")}:00\n`);
}

const last = (target: string): void => symlinkSync(target, temp.path("backups/LAST"));
const names = (): string[] => listSnapshots(temp.top).map(({ name }) => name);

describe("validateSnapshotName", () => {
  test.each([
    "S0",
    "2023-05-10",
    "a b",
    "before, the update",
    "Ёлка 😀",
    "list",
    "last",
    "LAST2",
    "a.b",
    "x-",
    "*",
    "$HOME",
    "~",
    "@x",
    "constructor",
    "ё".repeat(100),
  ])("%j is valid", (name) => {
    expect(() => validateSnapshotName(name)).not.toThrow();
  });

  test.each([
    "",
    "LAST",
    ".",
    "..",
    ".hidden",
    "-x",
    "--",
    "a/b",
    "/",
    "a/",
    "a\nb",
    "a\0b",
    "\x7f",
    "tab\t",
    "\x1b[1m",
  ])("%j is invalid (64)", async (name) => {
    const error = await failureOf(() => validateSnapshotName(name));
    expect(error.exitCode).toBe(64);
    expect(error.hint).toContain("LAST");
  });

  test.each(["x".repeat(201), "ё".repeat(101)])(
    "%j is too long (64): reports that, not another rule",
    async (name) => {
      const error = await failureOf(() => validateSnapshotName(name));
      expect(error.exitCode).toBe(64);
      expect(error.message).toMatch(/^a snapshot's name of 20[12] bytes is too long: /);
      expect(error.hint).toStartWith("use at most 200 bytes");
    },
  );
});

describe("nextSnapshotName", () => {
  test.each<[string[], string]>([
    [[], "S0"],
    [["S0"], "S1"],
    [["S9"], "S10"],
    [["S99"], "S100"],
    [["S9", "S99", "S100"], "S101"],
    [["S0", "S5"], "S6"],
    [["mine", "S1", "s7", "S8x", "xS9", "S-1", "S"], "S2"],
    [["S007"], "S8"],
    [["S20240102030405"], "S20240102030406"],
    [["S999999999999999"], "S1000000000000000"],
    [["S1000000000000000"], "S1000000000000001"],
    [["S99999999999999999999"], "S100000000000000000000"],
  ])("after %j: %s", (before, next) => {
    for (const name of before) temp.directory(`backups/${name}`);
    expect(nextSnapshotName(temp.top)).toBe(next);
  });

  test("increments the highest number, without filling gaps", () => {
    for (const expected of ["S0", "S1", "S2"]) {
      expect(nextSnapshotName(temp.top)).toBe(expected);
      temp.directory(`backups/${expected}`);
    }
  });

  test("also if a file has the name", () => {
    temp.write("backups/S3", "");
    expect(nextSnapshotName(temp.top)).toBe("S4");
  });
});

describe("listSnapshots", () => {
  test("returns none without backups", () => {
    expect(names()).toEqual([]);
  });

  test("returns the oldest first, by TS", () => {
    snapshots("S10", "S9", "mine");
    last("mine");
    expect(names()).toEqual(["S10", "S9", "mine"]);
  });

  test("ignores files, symlinks, and hidden entries", () => {
    snapshots("S0");
    temp.write("backups/S1", "");
    temp.directory("backups/.vm-partial-S2");
    symlinkSync("S0", temp.path("backups/S3"));
    last("S0");
    expect(names()).toEqual(["S0"]);
  });

  test.each(["", "yesterday", "2024-13-45 99:99:99", "2024-01-02", "2024-01-02 03:04:05 more"])(
    "TS %j: uses the directory's own time",
    (text) => {
      temp.write("backups/S0/TS", text);
      utimesSync(temp.path("backups/S0"), 1_000_000_000, 1_000_000_000);
      expect(listSnapshots(temp.top)[0]!.made).toEqual(new Date(1_000_000_000_000));
    },
  );

  test.each(["", "{", "null", '{"version":2,"format":"zst"}'])(
    "one with the damaged manifest %j does not hide the others",
    (manifest) => {
      snapshots("S0", "S1", "S2");
      temp.write("backups/S1/manifest.json", manifest);
      expect(() => listSnapshots(temp.top)).not.toThrow();
      expect(names()).toContain("S2");
    },
  );
});

describe("ignores other directories:", () => {
  test.each(["lost+found", "empty", "notes"])("%s", async (name) => {
    snapshots("S0");
    temp.directory(`backups/${name}`);
    temp.write(`backups/notes/README`, "mine");
    expect(names()).toEqual(["S0"]);
    expect((await failureOf(() => findSnapshot(temp.top, name))).exitCode).toBe(66);
    expect(nameTaken(temp.top, name)!.exitCode).toBe(73);
    expect(nameTaken(temp.top, name)!.message).toContain("and is no snapshot");
  });

  test.each(["manifest.json", "SHA256SUMS", "TS", "guest.env", "disk-0.img.gz", "disk-12.qcow2"])(
    "one typical file makes it a snapshot: %s",
    (file) => {
      temp.write(`backups/S0/${file}`, "");
      expect(names()).toEqual(["S0"]);
      expect(nameTaken(temp.top, "S0")!.message).toBe("the snapshot S0 exists already");
      expect(nameTaken(temp.top, "S1")).toBeUndefined();
    },
  );
});

describe("an unusable backups is an error (74), never no snapshots:", () => {
  test.each<[what: string, make: () => void, message: string]>([
    [
      "a dangling symlink",
      () => symlinkSync("/nowhere/disk", temp.path("backups")),
      "is a symbolic link to /nowhere/disk, which does not exist",
    ],
    [
      "a symlink to a file",
      () => symlinkSync(temp.write("file", ""), temp.path("backups")),
      "which is no directory",
    ],
    ["a file", () => temp.write("backups", ""), "is no directory"],
    [
      "a symlink in a foreign VM",
      () => {
        symlinkSync(temp.directory("elsewhere"), temp.path("backups"));
        chmodSync(temp.top, 0o777);
      },
      "is not followed in a foreign directory",
    ],
  ])("%s", async (_what, make, message) => {
    make();
    for (const use of [names, () => findSnapshot(temp.top, "S0"), () => nextSnapshotName(temp.top)]) {
      const error = await failureOf(use);
      expect(error.exitCode).toBe(74);
      expect(error.message).toContain(message);
    }
    expect((await failureOf(() => makeBackups(temp.top))).exitCode).toBe(74);
  });

  test("follows a symlink to a directory in a VM of this user", () => {
    temp.write("elsewhere/S0/TS", "2024-01-02 03:04:05\n");
    symlinkSync("elsewhere", temp.path("backups"));
    expect(names()).toEqual(["S0"]);
  });
});

describe("findSnapshot", () => {
  test("finds one by name", () => {
    snapshots("S0", "a b");
    expect(findSnapshot(temp.top, "a b")).toMatchObject({
      name: "a b",
      dir: temp.path("backups/a b"),
      made: new Date("2024-01-02T03:01:00"),
      manifest: undefined,
    });
  });

  test.each(["S0", "S0/", "./S0", "/elsewhere/backups/S0"])("without a name follows LAST: %s", (target) => {
    snapshots("S0", "S1");
    last(target);
    expect(findSnapshot(temp.top, undefined).name).toBe("S0");
  });

  test("without LAST returns the newest", () => {
    snapshots("S0", "S1");
    expect(findSnapshot(temp.top, undefined).name).toBe("S1");
  });

  test.each(["S7", "S", "s0"])("%s does not exist (66): lists existing ones", async (name) => {
    snapshots("S0", "S1");
    const error = await failureOf(() => findSnapshot(temp.top, name));
    expect(error.exitCode).toBe(66);
    expect(error.message).toBe(`no such snapshot: ${name}`);
    const similar = name === "s0" ? "did you mean 'S0'? " : "";
    expect(error.hint).toBe(`${similar}there are: S0 (2024-01-02 03:00:00), S1 (2024-01-02 03:01:00)`);
  });

  test("a dangling LAST is reported, and no other taken (66)", async () => {
    snapshots("S0");
    for (const target of ["S7", "../S7", ".vm-partial-S7"]) {
      rmSync(temp.path("backups/LAST"), { force: true });
      last(target);
      for (const name of [undefined, "LAST"]) {
        const error = await failureOf(() => findSnapshot(temp.top, name));
        expect(error.exitCode).toBe(66);
        expect(error.message).toBe(
          `cannot find the last snapshot: backups/LAST refers to ${target.replace("../", "")}, which does not exist`,
        );
        expect(error.hint).toStartWith("restore S0 (");
      }
    }
  });

  test("none at all (66)", async () => {
    const noVm = await failureOf(() => findSnapshot(temp.top, undefined));
    expect([noVm.exitCode, noVm.message]).toEqual([66, `there is no VM in ${temp.top}`]);
    temp.write("guest.env", 'GUESTNAME="x"\n');
    const error = await failureOf(() => findSnapshot(temp.top, undefined));
    expect(error.exitCode).toBe(66);
    expect(error.message).toContain("has no snapshots");
  });

  test.each(["..", "a/b", "-x", ".vm-partial-S0"])("%s is not a name (64)", async (name) => {
    expect((await failureOf(() => findSnapshot(temp.top, name))).exitCode).toBe(64);
  });

  test("lists existing ones besides another's damaged manifest", async () => {
    snapshots("S0", "S1");
    temp.write("backups/S0/manifest.json", "{");
    expect((await failureOf(() => findSnapshot(temp.top, "S7"))).exitCode).toBe(66);
    expect(findSnapshot(temp.top, "S1").name).toBe("S1");
  });
});
