import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  cpSync,
  lstatSync,
  lchownSync,
  chownSync,
  mkdirSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import {
  describeGone,
  findGuestEnv,
  parentOf,
  repointHost,
  resolveHostdir,
  resolveWork,
} from "../../src/store/workdir.ts";
import { updateMark } from "../../src/store/mark.ts";
import { removeWork } from "../../src/store/working-files.ts";
import { failureOf } from "../fixtures/failure.ts";
import { NONE, Place } from "./working-files.ts";

let place: Place;
beforeEach(() => {
  place = new Place();
});
afterEach(() => place[Symbol.dispose]());

const asRoot = test.skipIf(process.getuid!() !== 0);
const STRANGER = 12345;

/** Refused: 74, with the path, the reason and a hint. */
async function disbelieved(reason: string): Promise<void> {
  const error = await failureOf(() => resolveWork(place.host));
  expect(error.exitCode).toBe(74);
  expect(error.message).toContain(`cannot use ${place.path("host/.work")}: `);
  expect(error.message).toContain(reason);
  expect(error.hint).toBeTruthy();
}

describe("resolveWork accepts", () => {
  test("none without a .work", () => {
    expect(resolveWork(place.host)).toEqual(NONE);
  });

  test("working files of this program in TMPDIR", () => {
    const dir = place.make("x", "tmp");
    expect(resolveWork(place.host)).toMatchObject({ state: "present", dir, inplace: false, mark: { vm: 1 } });
  });

  test("working files in place", () => {
    place.make("x", "inplace");
    expect(resolveWork(place.host)).toMatchObject({ state: "present", dir: place.host, inplace: true });
  });

  test("a .work with the absolute path of HOSTDIR", () => {
    place.make("x", "inplace");
    unlinkSync(place.path("host/.work"));
    place.link(place.host, "host/.work");
    expect(resolveWork(place.host)).toMatchObject({ dir: place.host, inplace: true });
  });

  test("missing ones, with the time of the last run", () => {
    const dir = place.make("x", "tmp");
    rmSync(dir, { recursive: true });
    const work = resolveWork(place.host);
    expect(work).toMatchObject({ state: "gone", target: dir });
    if (work.state !== "gone") throw new Error("not gone");
    expect(Math.abs(work.made.getTime() - Date.now())).toBeLessThan(60_000);
    expect(describeGone(work)).toMatch(
      /^the working files in \S+ \(created .*\) are gone; this host was booted /,
    );
  });
});

test.each(["", "{", "null", "[]", "7", '{"vm":"1"}', '{"vm":0}', '{"vm":1,"run":5}'])(
  "resolveWork accepts the damaged mark %j: the exit reason of the last run is unknown",
  (text) => {
    writeFileSync(join(place.make("x", "tmp"), ".vm.json"), text);
    expect(resolveWork(place.host)).toMatchObject({
      state: "present",
      mark: { damaged: true, lastRun: "unknown" },
    });
  },
);

const gone = (dir: string): void =>
  expect(resolveWork(place.host)).toMatchObject({ state: "gone", target: dir, remains: true });

describe("working files whose disks were removed one by one are gone", () => {
  const env = 'IMAGES=(\n  "AHCI=qcow2=disk-0.img"\n)\n';

  test("by the mark, and by guest.env with the mark of an earlier version", () => {
    const dir = place.make("x", "tmp");
    unlinkSync(join(dir, "disk-0.img"));
    gone(dir);
    updateMark(dir, { disks: undefined });
    expect(resolveWork(place.host).state).toBe("present");
    writeFileSync(join(dir, "guest.env"), env);
    gone(dir);
    unlinkSync(join(dir, "guest.env"));
    place.write("host/guest.env", env);
    gone(dir);
  });

  test("when only the directory is left", () => {
    const dir = place.make("x", "tmp");
    for (const name of [".host", ".vm.json", "disk-0.img", "guest.env", "FIRSTTIME"])
      unlinkSync(join(dir, name));
    gone(dir);
    writeFileSync(join(dir, "efivars.bin"), "");
    gone(dir);
  });

  test("not while one exists, nor if there never was one", () => {
    const dir = place.make("x", "tmp");
    renameSync(join(dir, "disk-0.img"), join(dir, "disk-1.img"));
    expect(resolveWork(place.host).state).toBe("present");
    unlinkSync(join(dir, "disk-1.img"));
    updateMark(dir, { disks: [] });
    expect(resolveWork(place.host).state).toBe("present");
  });

  test.each([true, false])(
    "the rest is removed when new ones replace them, and by destroy (symlink back: %j)",
    (back) => {
      for (const finish of [
        (): void => void place.make("new", "tmp"),
        (): void => void place.make("new", "inplace"),
        (): void => removeWork(place.host, resolveWork(place.host)),
      ]) {
        removeWork(place.host, resolveWork(place.host));
        const dir = place.make("x", "tmp");
        unlinkSync(join(dir, "disk-0.img"));
        if (!back) for (const name of [".host", ".vm.json", "guest.env"]) unlinkSync(join(dir, name));
        gone(dir);
        finish();
        expect(lstatSync(dir, { throwIfNoEntry: false })).toBeUndefined();
      }
      expect(place.names().tmp).toEqual([]);
    },
  );
});

describe("resolveWork refuses", () => {
  test("a .work that is not a symlink", async () => {
    mkdirSync(place.path("host/.work"));
    await disbelieved("not a symlink");
  });

  asRoot("a link of somebody else's (needs root)", async () => {
    place.make("x", "tmp");
    lchownSync(place.path("host/.work"), STRANGER, STRANGER);
    await disbelieved(`belongs to uid ${STRANGER}`);
  });

  asRoot("a directory of somebody else's: squatted after a reboot (needs root)", async () => {
    chownSync(place.make("x", "tmp"), STRANGER, STRANGER);
    await disbelieved(`belongs to uid ${STRANGER}`);
  });

  asRoot("a .host of somebody else's (needs root)", async () => {
    lchownSync(join(place.make("x", "tmp"), ".host"), STRANGER, STRANGER);
    await disbelieved("no .host symlink of its owner");
  });

  test.each([0o770, 0o707, 0o720, 0o1777])("a directory with mode %o", async (mode) => {
    chmodSync(place.make("x", "tmp"), mode);
    await disbelieved("is writable by other users");
  });

  test("a file, and a symlink to a directory", async () => {
    const dir = place.make("x", "tmp");
    renameSync(dir, `${dir}.moved`);
    writeFileSync(dir, "");
    await disbelieved("is not a directory");
    unlinkSync(dir);
    symlinkSync(`${dir}.moved`, dir);
    await disbelieved("is not a directory");
  });

  test("a directory without .host", async () => {
    place.link(place.tmp, "host/.work");
    await disbelieved("no .host symlink of its owner");
  });

  test("a .host that is a file", async () => {
    const dir = place.make("x", "tmp");
    unlinkSync(join(dir, ".host"));
    writeFileSync(join(dir, ".host"), place.host);
    await disbelieved("no .host symlink of its owner");
  });

  test("a directory without the program's mark", async () => {
    unlinkSync(join(place.make("x", "tmp"), ".vm.json"));
    await disbelieved("does not have this program's mark");
  });

  test("a mark that is a symlink", async () => {
    const dir = place.make("x", "tmp");
    renameSync(join(dir, ".vm.json"), place.path("mark"));
    symlinkSync(place.path("mark"), join(dir, ".vm.json"));
    await disbelieved("does not have this program's mark");
  });

  test("a mark of a newer version (78)", async () => {
    writeFileSync(join(place.make("x", "tmp"), ".vm.json"), '{"vm":2}');
    const error = await failureOf(() => resolveWork(place.host));
    expect(error.exitCode).toBe(78);
    expect(error.message).toContain("newer version");
  });

  test("a copied VM: both would share one .work", async () => {
    place.make("x", "tmp");
    cpSync(place.host, place.path("copy"), { recursive: true, verbatimSymlinks: true });
    const error = await failureOf(() => resolveWork(place.path("copy")));
    expect(error.exitCode).toBe(74);
    expect(error.message).toContain(`belong to ${place.host}`);
    expect(resolveWork(place.host).state).toBe("present");
  });

  test("a copied VM, but not a moved one, whose old place is empty", async () => {
    const dir = place.make("x", "tmp");
    const moved = place.path("moved");
    renameSync(place.host, moved);
    expect(resolveWork(moved)).toMatchObject({ state: "present", movedFrom: place.host });
    mkdirSync(place.host);
    const error = await failureOf(() => resolveWork(moved));
    expect(error.exitCode).toBe(74);
    expect(error.hint).toStartWith(`if the VM was moved here: ln -sfn ${moved} ${dir}/.host; `);
    expect(error.hint).not.toMatch(/\brm /);
    expect(repointHost(place.host)).toEqual({ state: "none" });
    rmdirSync(place.host);
    expect(repointHost(moved)).toMatchObject({ movedFrom: place.host });
    expect(readlinkSync(join(dir, ".host"))).toBe(moved);
    expect(resolveWork(moved)).not.toHaveProperty("movedFrom");
    expect(repointHost(moved)).not.toHaveProperty("movedFrom");
  });

  test("a moved VM whose old place has another VM, but not a copy of a VM", () => {
    const dir = place.make("x", "tmp");
    const moved = place.path("moved");
    writeUuid(dir, "1");
    renameSync(place.host, moved);
    mkdirSync(place.host);
    const other = place.make("y", "tmp");
    writeUuid(other, "1");
    expect(() => resolveWork(moved)).toThrow(/belong to/);
    writeUuid(other, "2");
    expect(resolveWork(moved)).toMatchObject({ state: "present", dir, movedFrom: place.host });
    expect(resolveWork(place.host)).toMatchObject({ state: "present", dir: other });
    expect(repointHost(moved)).toMatchObject({ movedFrom: place.host });
    expect(resolveWork(moved)).not.toHaveProperty("movedFrom");
  });

  test("a VM moved within itself, with working files in place, is accepted", () => {
    place.make("x", "inplace");
    renameSync(place.host, place.path("moved"));
    expect(resolveWork(place.path("moved"))).toMatchObject({ state: "present", inplace: true });
  });

  test("another VM's working files", async () => {
    const other = place.directory("other");
    symlinkSync(place.make("x", "tmp"), join(other, ".work"));
    const error = await failureOf(() => resolveWork(other));
    expect(error.exitCode).toBe(74);
    expect(error.message).toContain(`belong to ${place.host}`);
  });
});

/** Writes the settings of a VM with a UUID. */
function writeUuid(dir: string, digit: string): void {
  writeFileSync(join(dir, "guest.env"), `UUID="${digit.repeat(8)}-0000-4000-8000-000000000000"\n`);
}

describe("resolveHostdir", () => {
  test("is the directory itself, by its real path", () => {
    place.link("host", "alias");
    expect(resolveHostdir(place.path("alias"))).toBe(place.host);
    expect(resolveHostdir(`${place.host}/../host/`)).toBe(place.host);
  });

  test("is the target of WORKDIR's .host [compat]", () => {
    expect(resolveHostdir(place.make("x", "tmp"))).toBe(place.host);
  });

  test("in place, is HOSTDIR", () => {
    expect(resolveHostdir(place.make("x", "inplace"))).toBe(place.host);
  });

  test.each(["nowhere", "file"])("%s is not a directory (66)", async (name) => {
    place.write("file", "");
    expect((await failureOf(() => resolveHostdir(place.path(name)))).exitCode).toBe(66);
  });

  test("a .host whose target does not point back is not followed (74)", async () => {
    place.directory("trap");
    place.link(place.host, "trap/.host");
    const error = await failureOf(() => resolveHostdir(place.path("trap")));
    expect(error.exitCode).toBe(74);
    expect(error.message).toContain(place.host);
  });

  test("a dangling .host is not followed (74)", async () => {
    const dir = place.make("x", "tmp");
    rmSync(place.host, { recursive: true });
    expect((await failureOf(() => resolveHostdir(dir))).exitCode).toBe(74);
  });

  asRoot("a .host of somebody else's is not followed (needs root)", async () => {
    const dir = place.make("x", "tmp");
    lchownSync(join(dir, ".host"), STRANGER, STRANGER);
    expect((await failureOf(() => resolveHostdir(dir))).exitCode).toBe(74);
  });
});

describe("findGuestEnv [compat]", () => {
  test("WORKDIR's, else HOSTDIR's, else none", () => {
    expect(findGuestEnv(place.host, NONE)).toBeUndefined();
    place.write("host/guest.env", "");
    const dir = place.make("x", "tmp");
    const work = resolveWork(place.host);
    expect(findGuestEnv(place.host, work)).toBe(join(dir, "guest.env"));
    unlinkSync(join(dir, "guest.env"));
    expect(findGuestEnv(place.host, work)).toBe(place.path("host/guest.env"));
    expect(findGuestEnv(place.host, NONE)).toBe(place.path("host/guest.env"));
  });
});

test("parentOf: the directory that contains WORKDIR, existing or not", () => {
  expect(parentOf(NONE)).toBeUndefined();
  const dir = place.make("x", "tmp");
  expect(parentOf(resolveWork(place.host))).toBe(place.tmp);
  rmSync(dir, { recursive: true });
  expect(parentOf(resolveWork(place.host))).toBe(place.tmp);
});
