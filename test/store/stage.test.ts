import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, join, relative } from "node:path";
import { PARTIAL, READY, REMOVING } from "../../src/store/layout.ts";
import { newMark } from "../../src/store/mark-types.ts";
import { readMark, updateMark, writeMark } from "../../src/store/mark.ts";
import { recoverWork } from "../../src/store/recover.ts";
import { stageWork } from "../../src/store/stage.ts";
import { removeWork } from "../../src/store/working-files.ts";
import { resolveWork } from "../../src/store/workdir.ts";
import { failureOf } from "../fixtures/failure.ts";
import { NONE, Place } from "./working-files.ts";

let place: Place;
beforeEach(() => {
  place = new Place();
});
afterEach(() => place[Symbol.dispose]());

const recover = (...parents: string[]): void =>
  void recoverWork(place.host, parents.length > 0 ? parents : [place.tmp]);

/** State after a crash: the VM's contents, and nothing left behind. */
function expectState(disk: string | undefined, tmp: string[], host?: string[]): void {
  recover();
  // A second time changes nothing.
  recover();
  expect(place.disk()).toBe(disk!);
  expect(place.names().tmp).toEqual(tmp);
  if (host) expect(place.names().host).toEqual(host);
}

const INPLACE = [".host", ".vm.json", ".work", "FIRSTTIME", "disk-0.img", "guest.env"];

describe("working files in TMPDIR", () => {
  test("are invisible before commit", () => {
    const stage = place.stage("new", "tmp");
    expect(resolveWork(place.host)).toEqual(NONE);
    expect(statSync(stage.dir).mode & 0o777).toBe(0o700);
    expect(place.names()).toEqual({ host: [], tmp: ["W.partial"] });
  });

  test("are the VM's after it, private, linked both ways", () => {
    const dir = place.make("new", "tmp", { restored: "offline" });
    expect(place.disk()).toBe("new");
    expect(readlinkSync(place.path("host/.work"))).toBe(dir);
    expect(readlinkSync(join(dir, ".host"))).toBe(place.host);
    expect(statSync(dir).mode & 0o777).toBe(0o700);
    expect(statSync(join(dir, ".vm.json")).mode & 0o777).toBe(0o600);
    expect(readMark(dir)).toMatchObject({ vm: 1, restored: "offline" });
  });

  test("abort leaves nothing", () => {
    place.make("old", "tmp");
    place.stage("new", "tmp").abort();
    expect(place.disk()).toBe("old");
    expect(place.names()).toEqual({ host: [".work"], tmp: ["W"] });
  });

  test("replace older ones", () => {
    place.make("old", "tmp");
    const dir = place.make("new", "tmp");
    expect(place.disk()).toBe("new");
    expect(place.names().tmp).toEqual(["W"]);
    expect(readMark(dir)?.replaces).toBeUndefined();
  });

  test("replace those in HOSTDIR, whose other files are kept", () => {
    place.make("old", "inplace");
    place.write("host/notes.txt", "mine");
    place.make("new", "tmp");
    expect(place.disk()).toBe("new");
    expect(place.names()).toEqual({ host: [".work", "guest.env", "notes.txt"], tmp: ["W"] });
  });

  test("fail if TMPDIR is missing, and leave nothing", async () => {
    const error = await failureOf(() => stageWork(place.host, { tmpdir: place.path("gone") }, NONE));
    expect(error.message).toContain(`cannot create working files in ${place.path("gone")}`);
    expect(place.has("gone")).toBe(false);
  });

  test("work in a directory with a special name", () => {
    const tmpdir = place.directory("a b,c'\"$x\nё");
    const stage = stageWork(place.host, { tmpdir }, NONE);
    writeFileSync(join(stage.dir, "disk-0.img"), "new");
    stage.commit();
    expect(place.disk()).toBe("new");
  });
});

describe("working files in place", () => {
  test("are invisible before commit", () => {
    place.stage("new", "inplace");
    expect(resolveWork(place.host)).toEqual(NONE);
  });

  test("are the VM's after it", () => {
    place.make("new", "inplace");
    expect(place.disk()).toBe("new");
    expect(place.names()).toEqual({ host: INPLACE, tmp: [] });
  });

  test("replace an earlier version's: all working files are removed, the user's are kept", () => {
    place.make("old", "inplace");
    updateMark(place.host, { owns: undefined });
    for (const name of [
      "disk-1.img",
      "efivars.bin",
      "qmp.sock",
      "console.log",
      "notes.txt",
      "disk-1.img.bak",
    ])
      place.write(`host/${name}`, "old");
    place.write("host/.out/job.log", "old");
    place.make("new", "inplace");
    expect(place.disk()).toBe("new");
    expect(place.names().host).toEqual([...INPLACE, "disk-1.img.bak", "notes.txt"].toSorted());
  });

  test("replace older ones: only files named in the mark are removed", () => {
    const dir = place.make("old", "inplace");
    updateMark(dir, { owns: [...readMark(dir)!.owns!, "disk-1.img", "qemu.log"] });
    for (const name of ["disk-1.img", "qemu.log"]) place.write(`host/${name}`, "old");
    place.make("new", "inplace");
    expect(place.names().host).toEqual(INPLACE);
    expect(readMark(dir)?.owns?.toSorted()).toEqual(["FIRSTTIME", "disk-0.img"]);
  });

  test("replace those in TMPDIR", () => {
    place.make("old", "tmp");
    place.make("new", "inplace");
    expect(place.disk()).toBe("new");
    expect(place.names()).toEqual({ host: INPLACE, tmp: [] });
  });

  test("abort leaves nothing", () => {
    place.make("old", "inplace");
    place.stage("new", "inplace").abort();
    expect(place.disk()).toBe("old");
    expect(place.names().host).toEqual(INPLACE);
  });

  test("directories among them replace directories", () => {
    const dir = place.make("old", "inplace");
    updateMark(dir, { owns: [...readMark(dir)!.owns!, ".in"] });
    place.write("host/.in/old", "");
    const stage = place.stage("new", "inplace");
    mkdirSync(join(stage.dir, ".in"));
    stage.commit();
    expect(readdirSync(place.path("host/.in"))).toEqual([]);
  });
});

describe("killed in TMPDIR", () => {
  test("while copying: the old ones remain", () => {
    place.make("old", "tmp");
    place.stage("new", "tmp");
    expectState("old", ["W"]);
  });

  test("while copying, without older ones: none", () => {
    place.stage("new", "tmp");
    expectState(undefined, [], []);
  });

  test("when complete but not linked yet: the old ones remain", () => {
    const old = place.make("old", "tmp");
    const stage = place.stage("new", "tmp");
    writeMark(stage.dir, { ...newMark(), replaces: old });
    renameSync(stage.dir, stage.dir.replace(".partial", ""));
    expectState("old", ["W"]);
  });

  test("when complete but not linked yet, without older ones: none", () => {
    const stage = place.stage("new", "tmp");
    writeMark(stage.dir, { ...newMark(), unlinked: true });
    renameSync(stage.dir, stage.dir.replace(".partial", ""));
    expectState(undefined, [], []);
  });

  test("when linked, before that is recorded: the new ones", () => {
    const dir = place.make("new", "tmp");
    updateMark(dir, { unlinked: true });
    expectState("new", ["W"]);
    expect(readMark(dir)?.unlinked).toBeUndefined();
  });

  test("working files of a VM that was in this directory before, and has never run, are not removed", () => {
    const moved = place.make("moved", "tmp");
    unlinkSync(place.path("host/.work"));
    place.make("new", "tmp");
    recover();
    expect(readMark(moved)).toBeDefined();
    expect(place.disk()).toBe("new");
  });

  test("between the symlink's steps: the old ones remain", () => {
    place.make("old", "tmp");
    place.link("/nowhere", `host/${PARTIAL}4711`);
    expectState("old", ["W"], [".work"]);
  });

  test("when linked, before the old ones are removed: the new ones only", () => {
    const old = place.make("old", "tmp");
    const kept = place.path("kept");
    renameSync(old, kept);
    unlinkSync(place.path("host/.work"));
    const dir = place.make("new", "tmp");
    renameSync(kept, old);
    updateMark(dir, { replaces: old });
    expectState("new", ["W"]);
    expect(readMark(dir)?.replaces).toBeUndefined();
  });

  test("while the old ones are removed: the new ones only", () => {
    const old = place.make("old", "tmp", { lastRun: "powered-off" });
    const dir = place.make("new", "tmp");
    mkdirSync(`${old}.discarded`);
    place.link(place.host, relative(place.top, `${old}.discarded`), ".host");
    writeFileSync(join(`${old}.discarded`, "disk-0.img"), "old");
    updateMark(dir, { replaces: old });
    expectState("new", ["W"]);
  });

  test("when linked, before those in HOSTDIR are removed: the new ones only", () => {
    place.make("old", "inplace");
    place.write("host/notes.txt", "mine");
    const before = place.path("before");
    Bun.spawnSync(["cp", "-a", place.host, before]);
    const dir = place.make("new", "tmp");
    updateMark(dir, { replaces: place.host });
    // The old state is complete again, but .work points to the new one.
    for (const name of readdirSync(before))
      if (name !== ".work") Bun.spawnSync(["cp", "-aT", join(before, name), place.path("host", name)]);
    expectState("new", ["W"], [".work", "guest.env", "notes.txt"]);
  });

  test("while a file in WORKDIR is replaced: no partial file remains", () => {
    const dir = place.make("old", "tmp");
    writeFileSync(join(dir, `${PARTIAL}4711`), "half");
    expectState("old", ["W"]);
    expect(readdirSync(dir).filter((name) => name.startsWith(PARTIAL))).toEqual([]);
  });

  test("leaves another VM's files alone", () => {
    place.make("old", "tmp");
    const other = place.directory("other");
    const theirs = stageWork(other, { tmpdir: place.tmp }, NONE);
    recover();
    expect(existsSync(theirs.dir)).toBe(true);
    theirs.commit();
    recover();
    expect(resolveWork(other).state).toBe("present");
    expect(place.disk()).toBe("old");
  });

  test.skipIf(process.getuid!() !== 0)("leaves another user's files alone (needs root)", () => {
    const stage = place.stage("new", "tmp");
    Bun.spawnSync(["chown", "12345:12345", stage.dir]);
    recover();
    expect(existsSync(stage.dir)).toBe(true);
  });

  test("does not follow a symlink of such a name", () => {
    place.write("precious/file", "x");
    const stage = place.stage("new", "tmp");
    rmSync(stage.dir, { recursive: true });
    symlinkSync(place.path("precious"), stage.dir);
    recover();
    expect(place.has("precious/file")).toBe(true);
  });
});

describe("recovery keeps the VM's own working files", () => {
  test("when TMPDIR has another spelling now", () => {
    place.make("new", "tmp");
    place.link("tmp", "alias");
    recover(place.path("alias"));
    expect(place.disk()).toBe("new");
    recover(`${place.tmp}/`, `${place.tmp}/../tmp`, place.path("alias"));
    expect(place.disk()).toBe("new");
  });

  test("when .work is a relative path", () => {
    const dir = place.make("new", "tmp");
    unlinkSync(place.path("host/.work"));
    place.link(`../tmp/${basename(dir)}`, "host/.work");
    recover();
    expect(place.disk()).toBe("new");
  });

  test("when .work ends in a slash", () => {
    const dir = place.make("new", "tmp");
    unlinkSync(place.path("host/.work"));
    place.link(`${dir}/`, "host/.work");
    recover();
    expect(place.disk()).toBe("new");
  });

  test("and the user's own files, whatever their names", () => {
    place.make("new", "tmp");
    const names = [
      ".partial-notes",
      ".vm-partially",
      "vm-partial-x",
      ".ready",
      ".removing",
      "disk-0.img.partial",
    ];
    for (const name of names) place.write(`host/${name}`, "mine");
    recover();
    for (const name of names) expect(place.has("host", name)).toBe(true);
  });

  test("when there is nothing to do", () => {
    place.make("new", "inplace");
    const before = place.names();
    recover();
    expect(place.names()).toEqual(before);
    expect(place.disk()).toBe("new");
  });
});

/** New working files, complete, as renamed by commit. */
function ready(text: string): string {
  const stage = place.stage(text, "inplace");
  const old = resolveWork(place.host);
  writeMark(stage.dir, {
    ...newMark(),
    files: readdirSync(stage.dir),
    ...(old.state === "present" && !old.inplace ? { replaces: old.dir } : {}),
  });
  renameSync(stage.dir, place.path("host", READY));
  return place.path("host", READY);
}

describe("killed in place", () => {
  test("while copying: the old ones remain", () => {
    place.make("old", "inplace");
    place.stage("new", "inplace");
    expectState("old", [], INPLACE);
  });

  test("when complete: the new ones", () => {
    const dir = place.make("old", "inplace");
    updateMark(dir, { owns: [...readMark(dir)!.owns!, "disk-1.img"] });
    place.write("host/disk-1.img", "old");
    ready("new");
    expectState("new", [], INPLACE);
  });

  test.each(["disk-0.img", "guest.env", "FIRSTTIME"])("after %s was moved: the new ones", (name) => {
    place.make("old", "inplace");
    renameSync(join(ready("new"), name), place.path("host", name));
    expectState("new", [], INPLACE);
    expect(readFileSync(place.path("host/guest.env"), "utf8")).toBe("new");
  });

  test("after all but the mark were moved: the new ones", () => {
    place.make("old", "inplace");
    const from = ready("new");
    for (const name of readdirSync(from))
      if (name !== ".vm.json") renameSync(join(from, name), place.path("host", name));
    expectState("new", [], INPLACE);
  });

  test("after the mark was moved, too: the new ones", () => {
    place.make("old", "inplace");
    const from = ready("new");
    for (const name of readdirSync(from)) renameSync(join(from, name), place.path("host", name));
    expectState("new", [], INPLACE);
  });

  test("without older ones: the new ones", () => {
    ready("new");
    expectState("new", [], INPLACE);
  });

  test("before those in TMPDIR are removed: the new ones only", () => {
    place.make("old", "tmp", { lastRun: "powered-off" });
    ready("new");
    expectState("new", [], INPLACE);
  });
});

const outside = (): Record<string, string> => ({
  precious: readFileSync(place.path("precious"), "utf8"),
  bashrc: readFileSync(place.path("host/.bashrc"), "utf8"),
  disk: readFileSync(place.path("host/disk-0.img"), "utf8"),
});

const rewrite = (dir: string, files: unknown[]): void =>
  writeFileSync(join(dir, ".vm.json"), JSON.stringify({ vm: 1, created: new Date().toISOString(), files }));

/** @param change the redo log, complete otherwise */
async function refused(change: (dir: string) => void, named: string): Promise<void> {
  place.write("precious", "mine");
  place.write("host/.bashrc", "mine");
  place.make("old", "inplace");
  const dir = ready("new");
  change(dir);
  const before = outside();
  const error = await failureOf(() => recover());
  expect(error.exitCode).toBe(74);
  expect(error.message).toContain(named);
  expect(outside()).toEqual(before);
  expect(place.disk()).toBe("old");
}

/** A redo log with anything that this program has not written: 74, and no change. */
describe("a redo log is refused", () => {
  test.each([".bashrc", "backups", "notes.txt", ".ssh"])("that names %j", async (name) => {
    await refused((dir) => rewrite(dir, ["disk-0.img", name]), name);
  });

  test.each([".bashrc", ".ssh/authorized_keys", "backups/S0/TS", "notes.txt"])(
    "that contains %s",
    async (name) => {
      await refused((dir) => {
        mkdirSync(join(dir, name, ".."), { recursive: true });
        writeFileSync(join(dir, name), "hostile");
      }, name.split("/")[0]!);
    },
  );

  test("that contains a symlink", async () => {
    await refused((dir) => {
      rmSync(join(dir, "disk-0.img"));
      symlinkSync(place.path("precious"), join(dir, "disk-0.img"));
    }, "disk-0.img is not a regular file");
  });

  test("that contains a directory instead of a disk", async () => {
    await refused((dir) => {
      rmSync(join(dir, "disk-0.img"));
      mkdirSync(join(dir, "disk-0.img"));
    }, "disk-0.img is not a regular file");
  });

  test("that is a symlink itself", async () => {
    await refused((dir) => {
      renameSync(dir, place.path("elsewhere"));
      symlinkSync(place.path("elsewhere"), dir);
    }, `${READY} is not a directory`);
  });

  test("of a removal, that is a symlink", async () => {
    await refused((dir) => {
      rmSync(dir, { recursive: true });
      symlinkSync(place.path("precious"), place.path("host", REMOVING));
    }, `${REMOVING} is not a regular file`);
  });

  test.each(["..", "../../precious", "", "/etc/passwd", "a/b"])(
    "names that are paths count as damage: %j",
    (name) => {
      place.write("precious", "mine");
      place.make("old", "inplace");
      rewrite(ready("new"), ["disk-0.img", name]);
      recover();
      // Only the new files themselves are moved.
      expect(place.disk()).toBe("new");
      expect(readFileSync(place.path("precious"), "utf8")).toBe("mine");
    },
  );
});

describe("recovery in TMPDIR leaves alone", () => {
  test.each([
    ["a directory of another VM, whatever its name", "/elsewhere"],
    ["a directory that names no VM", undefined],
  ])("%s", (_what, host) => {
    const stage = place.stage("new", "tmp");
    rmSync(join(stage.dir, ".host"));
    if (host !== undefined) symlinkSync(host, join(stage.dir, ".host"));
    recover();
    expect(existsSync(join(stage.dir, "disk-0.img"))).toBe(true);
  });

  test("a replaced directory that is not this VM's", () => {
    const dir = place.make("new", "tmp");
    place.write("precious/file", "mine");
    updateMark(dir, { replaces: place.path("precious") });
    recover();
    place.link(place.host, "precious/.host");
    updateMark(dir, { replaces: place.path("precious") });
    recover();
    expect(place.has("precious/file")).toBe(true);
  });
});

describe("removing", () => {
  test("working files in TMPDIR", () => {
    place.make("old", "tmp");
    place.write("host/notes.txt", "mine");
    removeWork(place.host, resolveWork(place.host));
    expect(place.names()).toEqual({ host: ["notes.txt"], tmp: [] });
  });

  test("working files in place: what the mark does not name is kept, whatever its name", () => {
    place.make("old", "inplace");
    const names = ["known_hosts", "console.log", ".in/x", ".out/y", "efivars.bin", "disk-7.img"];
    for (const name of names) place.write(`host/${name}`, "mine");
    removeWork(place.host, resolveWork(place.host));
    expect(place.names().host).toEqual(
      [".in", ".out", "console.log", "disk-7.img", "efivars.bin", "guest.env", "known_hosts"].toSorted(),
    );
  });

  test("working files in place of an earlier version: guest.env, snapshots and the user's files are kept", () => {
    place.make("old", "inplace");
    updateMark(place.host, { owns: undefined });
    for (const name of ["disk-12.img", "efivars.bin", ".in/x", ".out/y", "run-vm.sh", "qemu.log"])
      place.write(`host/${name}`, "");
    for (const name of ["notes.txt", "disk-x.img", "backups/S0/TS", "install.job"])
      place.write(`host/${name}`, "");
    removeWork(place.host, resolveWork(place.host));
    expect(place.names().host).toEqual(["backups", "disk-x.img", "guest.env", "install.job", "notes.txt"]);
  });

  test("a dangling symlink", () => {
    rmSync(place.make("old", "tmp"), { recursive: true });
    removeWork(place.host, resolveWork(place.host));
    expect(place.names()).toEqual({ host: [], tmp: [] });
  });

  test("nothing", () => {
    removeWork(place.host, NONE);
    expect(place.names()).toEqual({ host: [], tmp: [] });
  });

  test("killed before the symlink is removed: none are left", () => {
    const dir = place.make("old", "tmp", { lastRun: "powered-off" });
    renameSync(dir, `${dir}.discarded`);
    expectState(undefined, [], []);
  });

  test("killed before the files are removed: none are left", () => {
    const dir = place.make("old", "tmp", { lastRun: "powered-off" });
    renameSync(dir, `${dir}.discarded`);
    unlinkSync(place.path("host/.work"));
    expectState(undefined, [], []);
  });

  test("killed in place, halfway: none are left, guest.env is kept", () => {
    place.make("old", "inplace");
    place.write(join("host", REMOVING), "");
    unlinkSync(place.path("host/.work"));
    unlinkSync(place.path("host/disk-0.img"));
    expectState(undefined, [], ["guest.env"]);
  });

  test("killed in place, at the start: none are left, guest.env is kept", () => {
    place.make("old", "inplace");
    place.write(join("host", REMOVING), "");
    expectState(undefined, [], ["guest.env"]);
  });
});
