import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  statSync,
  symlinkSync,
  truncateSync,
} from "node:fs";
import { join } from "node:path";
import { remove } from "../../src/store/remove.ts";
import { lstatOf, readSmall, readTail } from "../../src/lib/read-file.ts";
import {
  allocatedBytes,
  fileError,
  freeBytes,
  listDirectory,
  replaceFile,
  replaceSymlink,
  requireSpace,
  writeNew,
} from "../../src/store/files.ts";
import { VmError } from "../../src/lib/errors.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

let temp: Temp;
beforeEach(() => {
  temp = new Temp();
});
afterEach(() => temp[Symbol.dispose]());

const errno = (code: string): Error => Object.assign(new Error(`${code}: no luck, write`), { code });

describe("names in a missing directory", () => {
  test.each(["none", "file/below"])("%s", (name) => {
    temp.write("file", "");
    expect(lstatOf(temp.path(name))).toBeUndefined();
    expect(listDirectory(temp.path(name))).toEqual([]);
    expect(readSmall(temp.path(name))).toBeUndefined();
  });
});

test("removing a missing file is no error", () => {
  expect(() => remove(temp.path("none"))).not.toThrow();
});

describe("writeNew", () => {
  test("creates a private file, whatever the umask", () => {
    const before = process.umask(0);
    try {
      writeNew(temp.path("new"), "text");
    } finally {
      process.umask(before);
    }
    expect(readFileSync(temp.path("new"), "utf8")).toBe("text");
    expect(statSync(temp.path("new")).mode & 0o777).toBe(0o600);
  });

  test("never overwrites, and follows no symlink", () => {
    temp.write("old", "old");
    expect(() => writeNew(temp.path("old"), "new")).toThrow("EEXIST");
    symlinkSync(temp.path("victim"), temp.path("link"));
    expect(() => writeNew(temp.path("link"), "new")).toThrow("EEXIST");
    expect(readFileSync(temp.path("old"), "utf8")).toBe("old");
    expect(readdirSync(temp.top).toSorted()).toEqual(["link", "old"]);
  });
});

describe("replaceFile", () => {
  test.each(["absent", "present"])("if it is %s", (state) => {
    if (state === "present") temp.write("file", "old");
    replaceFile(temp.path("file"), "new");
    expect(readFileSync(temp.path("file"), "utf8")).toBe("new");
    expect(readdirSync(temp.top)).toEqual(["file"]);
  });

  test("replaces a symlink, not its target", () => {
    symlinkSync(temp.write("victim", "old"), temp.path("file"));
    replaceFile(temp.path("file"), "new");
    expect(readFileSync(temp.path("victim"), "utf8")).toBe("old");
    expect(lstatOf(temp.path("file"))?.isFile()).toBe(true);
  });

  test("leaves nothing after a failure", () => {
    temp.write("directory/x", "");
    expect(() => replaceFile(temp.path("directory"), "new")).toThrow();
    expect(readdirSync(temp.top)).toEqual(["directory"]);
  });
});

describe("replaceSymlink", () => {
  test.each([undefined, "old", "/nowhere"])("from %p", (old) => {
    if (old) symlinkSync(old, temp.path("link"));
    replaceSymlink(temp.path("link"), "a b\nc");
    expect(readlinkSync(temp.path("link"))).toBe("a b\nc");
    expect(readdirSync(temp.top)).toEqual(["link"]);
  });

  test("does not write into the old one's target", () => {
    symlinkSync(temp.directory("directory"), temp.path("link"));
    replaceSymlink(temp.path("link"), "new");
    expect(readlinkSync(temp.path("link"))).toBe("new");
    expect(readdirSync(temp.path("directory"))).toEqual([]);
  });

  test("leaves nothing after a failure", () => {
    temp.write("directory/x", "");
    expect(() => replaceSymlink(temp.path("directory"), "new")).toThrow();
    expect(readdirSync(temp.top)).toEqual(["directory"]);
  });
});

test("readSmall follows no symlink", () => {
  symlinkSync(temp.write("secret", "x"), temp.path("link"));
  expect(() => readSmall(temp.path("link"))).toThrow("a symbolic link");
});

test("holes do not count as allocated", () => {
  temp.write("data", Buffer.alloc(65_536, 1));
  Bun.spawnSync(["truncate", "-s", "1G", temp.path("hole")]);
  expect(allocatedBytes(statSync(temp.path("data")))).toBeGreaterThanOrEqual(65_536);
  expect(allocatedBytes(statSync(temp.path("hole")))).toBeLessThan(65_536);
});

describe("requireSpace", () => {
  test("accepts enough space", () => {
    expect(() => requireSpace(temp.top, Math.floor(freeBytes(temp.top) / 2), "x", "tmpdir")).not.toThrow();
  });
  test("reports needed and free space (73)", async () => {
    const error = await failureOf(() => requireSpace(temp.top, 2 ** 60, "make the snapshot", "snapshots"));
    expect(error.exitCode).toBe(73);
    expect(error.message).toMatch(
      /^cannot make the snapshot: no space in \S+: about \S+ TiB needed, .* free$/,
    );
    expect(error.hint).toContain("remove old snapshots");
    const elsewhere = await failureOf(() => requireSpace(temp.top, 2 ** 60, "restore S0", "tmpdir"));
    expect(elsewhere.hint).not.toContain("snapshots");
  });
});

describe("fileError", () => {
  test.each([
    ["ENOSPC", 73, "cannot x: no space left on device"],
    ["EDQUOT", 73, "cannot x: no space left on device"],
    ["EACCES", 73, "cannot x: no luck"],
    ["EROFS", 73, "cannot x: no luck"],
    ["EIO", 74, "cannot x: no luck"],
  ])("%s is %d: %s", (code, exitCode, message) => {
    const cause = errno(code);
    expect(fileError("cannot x", cause)).toMatchObject({ exitCode, message, cause });
  });
  test("on a read-only filesystem neither an owner nor a mode is advised", () => {
    const { hint } = fileError("cannot x", errno("EROFS"));
    expect(hint).toContain("remount,rw");
    expect(hint).not.toContain("chown");
    expect(fileError("cannot x", errno("EACCES")).hint).toContain("chown");
  });
  test("passes an error for the user unchanged", () => {
    const error = new VmError("busy", "held");
    expect(fileError("cannot x", error)).toBe(error);
  });
});

describe("does not read or wait for files that are not regular:", () => {
  test.each([
    ["a named pipe", (path: string) => void Bun.spawnSync(["mkfifo", path])],
    ["a directory", (path: string) => mkdirSync(path)],
    ["a device", (path: string) => symlinkSync("/dev/zero", path)],
  ])("%s", (_title, make) => {
    make(temp.path("odd"));
    expect(() => readSmall(temp.path("odd"))).toThrow("not a regular file");
    expect(() => readTail(temp.path("odd"))).toThrow("not a regular file");
  });

  test("a socket", () => {
    using _listener = Bun.listen({ unix: temp.path("socket"), socket: { data: () => {} } });
    expect(() => readSmall(temp.path("socket"))).toThrow("a socket, not a regular file");
  });
});

test("readSmall refuses files larger than its limit, holes too", () => {
  truncateSync(temp.write("huge", ""), 2 ** 40);
  expect(() => readSmall(temp.path("huge"))).toThrow("larger than 1.0 MiB");
  expect(readSmall(temp.write("small", "12345"), 5)).toBe("12345");
  expect(() => readSmall(temp.path("small"), 4)).toThrow("larger than");
});

test("readTail returns whole lines of the end", () => {
  temp.write("log", `${"x".repeat(100)}\nfirst\nlast\n`);
  expect(readTail(temp.path("log"), 13)).toBe("first\nlast\n");
  expect(readTail(temp.path("log"))).toEndWith("x\nfirst\nlast\n");
  expect(readTail(temp.path("none"))).toBeUndefined();
});

test("remove takes linear time for deep trees, and removes unreadable directories and symlinks", () => {
  const top = temp.directory("deep");
  const kept = temp.write("kept", "x");
  // From the innermost outwards, as the whole path exceeds the kernel's limit.
  const [inner, outer] = [join(top, "inner"), join(top, "outer")];
  mkdirSync(inner);
  temp.write("deep/inner/file", "");
  symlinkSync(kept, join(inner, "link"));
  for (let depth = 0; depth < 3000; depth++) {
    mkdirSync(outer);
    renameSync(inner, join(outer, "d"));
    renameSync(outer, inner);
  }
  mkdirSync(join(top, "closed/inner"), { recursive: true });
  chmodSync(join(top, "closed"), 0);
  remove(top);
  expect(existsSync(top)).toBe(false);
  expect(existsSync(kept)).toBe(true);
});
