import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { mergeListings } from "../../src/files/diff.ts";
import {
  entryToJson,
  escapeName,
  formatEntry,
  formatMode,
  parseFileRecord,
  readListing,
  readVolumes,
  type FileEntry,
} from "../../src/files/listing.ts";
import { parseFilesRequest, validateGuestPath } from "../../src/files/request.ts";
import { validateOnly, withoutNested } from "../../src/files/put.ts";
import { nameAsInGuest } from "../../src/files/run.ts";
import { parseRefused } from "../../src/files/unpack.ts";
import { Temp } from "../fixtures/temp.ts";

const record = (path: string | Buffer, facts = "f 644 0 0 5 1700000000.5 "): Buffer =>
  Buffer.concat([Buffer.from(path), Buffer.from(`//${facts}`)]);
const entry = (path: string, facts?: string): FileEntry => parseFileRecord(record(path, facts)) as FileEntry;

describe("a record", () => {
  test("of a symlink with line ends, blanks and slashes in its names", () => {
    const parsed = parseFileRecord(record("a/b\nc d", "l 777 1000 100 4 -1.25 x//y z"));
    expect(parsed).toMatchObject({ type: "l", mode: "0777", uid: 1000, gid: 100, size: 4, mtime: "-1.25" });
    expect((parsed as FileEntry).target?.toString()).toBe("x//y z");
    expect(parsed.path.toString()).toBe("a/b\nc d");
  });

  test.each([
    "f",
    "f 644 0 0 5 1",
    "f 8 0 0 5 1 ",
    "ff 644 0 0 5 1 ",
    "f 644 -1 0 5 1 ",
    "s 00",
    "f 644 0 0 5e9 1 ",
  ])("refuses %p", (facts) => expect(() => parseFileRecord(record("a", facts))).toThrow(/something else/));

  test("refuses one without a path's end", () =>
    expect(() => parseFileRecord(Buffer.from("a"))).toThrow(/something else/));
});

test("a name is shown on one line, with nothing that steers a terminal", () => {
  expect(escapeName(Buffer.from("plain ÄÖ"))).toBe("plain ÄÖ");
  expect(escapeName(Buffer.from("a\nb\t\\\x1b[31m\u202e"))).toBe(String.raw`a\nb\t\\\033[31m\342\200\256`);
  expect(escapeName(Buffer.from([0x61, 0xff, 0x0a]))).toBe(String.raw`a\377\n`);
});

test.each([
  ["f", "4755", "-rwsr-xr-x"],
  ["f", "4644", "-rwSr--r--"],
  ["d", "1777", "drwxrwxrwt"],
  ["d", "2750", "drwxr-s---"],
  ["c", "0600", "crw-------"],
])("mode %s %s is %s", (type, mode, text) => expect(formatMode(type, mode)).toBe(text));

test("an entry as a line, and as JSON with exact bytes", () => {
  const link = entry("l", "l 777 0 0 1 0 t\u001b");
  expect(formatEntry(link, "")).toMatch(/^lrwxrwxrwx {2}0:0 +1 {2}.* l -> t\\033$/);
  expect(formatEntry(entry(""), "fstab")).toEndWith("  fstab");
  expect(entryToJson(link)).toMatchObject({ path: "l", type: "symlink", mode: "0777", target: "t\u001b" });
  const odd = parseFileRecord(record(Buffer.from([0xff]))) as FileEntry;
  expect(entryToJson(odd)).toMatchObject({
    pathBase64: "/w==",
    type: "file",
    size: 5,
    mtime: 1_700_000_000.5,
  });
});

test("a listing is read in pieces; a checksum belongs to the entry before it", () => {
  using temp = new Temp();
  const file = temp.path("list");
  const long = "x".repeat(4000);
  const sum = "0".repeat(64);
  const many = Array.from({ length: 100 }, (_, index) => record(`${long}${index}`));
  const records = [...many, record("z"), record("z", `s ${sum}`), record("zz", `s ${sum}`)];
  writeFileSync(file, Buffer.concat(records.map((item) => Buffer.concat([item, Buffer.from([0])]))));
  const entries = [...readListing(file)];
  expect(entries.length).toBe(101);
  expect(entries.at(-1)).toMatchObject({ sum });
  expect(entries.at(-2)!.sum).toBeUndefined();
  for (const text of ["no end", `${"x".repeat(100_000)}//\0`]) {
    writeFileSync(file, text);
    expect(() => [...readListing(file)]).toThrow(/something else/);
  }
  writeFileSync(file, "disk-0p1\0ext4\x001024\0/\0rest\0");
  expect([...readVolumes(file)]).toEqual([["disk-0p1", "ext4", 1024, "/"]]);
});

const changes = (before: FileEntry[], after: FileEntry[]): string[] =>
  [...mergeListings(before, after)].map(([change, old, now]) => `${change} ${(now ?? old)!.path.toString()}`);

describe("differences of listings", () => {
  test("added, deleted, modified", () => {
    const before = [entry("a-b"), entry("a", "d 755 0 0 1 1 "), entry("a/b"), entry("c"), entry("gone")];
    const after = [
      entry("a-b"),
      entry("a", "d 755 0 0 4096 2 "),
      entry("a/b", "f 644 0 0 6 1700000000.5 "),
      entry("c", "f 600 0 0 5 1700000000.5 "),
      entry("new"),
    ];
    expect(changes(before, after)).toEqual(["M a/b", "M c", "D gone", "A new"]);
    expect(changes([], [entry("x")])).toEqual(["A x"]);
    expect(changes(before, before)).toEqual([]);
  });

  test("with checksums the contents decide, without them the time", () => {
    const touched = "f 644 0 0 5 1700000001.5 ";
    expect(changes([entry("a")], [entry("a", touched)])).toEqual(["t a"]);
    expect(changes([entry("a")], [entry("a", "l 777 0 0 5 1 x")])).toEqual(["T a"]);
    expect(changes([entry("a")], [entry("a", "d 755 0 0 5 1 ")])).toEqual(["T a"]);
    const summed = (facts: string | undefined, sum: string): FileEntry => ({ ...entry("a", facts), sum });
    expect(changes([summed(undefined, "1")], [summed(touched, "1")])).toEqual([]);
    expect(changes([summed(undefined, "1")], [summed(undefined, "2")])).toEqual(["M a"]);
    const link = (target: string, time: number): FileEntry => entry("l", `l 777 0 0 1 ${time} ${target}`);
    expect(changes([link("x", 1)], [link("x", 2)])).toEqual([]);
    expect(changes([link("x", 1)], [link("y", 1)])).toEqual(["M l"]);
  });
});

test.each(["/", "/etc/fstab", "disk-0p1:/a", "vg-root:/", "/a:b"])("%p is a path in a guest", (path) =>
  expect(() => validateGuestPath(path, "S2")).not.toThrow(),
);
test.each(["", "etc", "-x:/a", "a b:/c", "disk-0:etc", `/${"x".repeat(4095)}`, "/a\0b"])(
  "%p is none (exit 64)",
  (path) => expect(() => validateGuestPath(path, "S2")).toThrow(/as a path in the guest/),
);
test.each(["/", "//", "/.", "disk-0:/", "/.."])("restore --only refuses %p", (path) =>
  expect(() => validateOnly([path], undefined)).toThrow(/whole filesystem/),
);

describe("words", () => {
  test("ls: without a path the filesystems; get: one path goes to the current directory", () => {
    expect(parseFilesRequest({ action: "ls", name: ["S0"] })).toMatchObject({ name: "S0", path: undefined });
    expect(parseFilesRequest({ action: "get", name: ["S0", "/a"] })).toMatchObject({
      paths: ["/a"],
      destination: ".",
    });
    expect(parseFilesRequest({ action: "get", name: ["S0", "/a", "/b", "to"] })).toMatchObject({
      paths: ["/a", "/b"],
      destination: "to",
    });
    expect(parseFilesRequest({ action: "diff", name: ["S0", "S1"] })).toBeUndefined();
    expect(parseFilesRequest({ action: "diff", files: true, name: ["S0", "S1"] })).toMatchObject({
      from: "S0",
      to: "S1",
    });
  });

  test.each([
    [{ action: "ls" }],
    [{ action: "ls", name: ["S0", "/a", "/b"] }],
    [{ action: "ls", name: ["S0", "etc"] }],
    [{ action: "ls", name: ["S0"], recursive: true }],
    [{ action: "ls", name: ["../S0", "/"] }],
    [{ action: "get", name: ["S0"] }],
    [{ action: "get", name: ["S0", "/a", "/b", "-"] }],
    [{ action: "get", name: ["S0", "/a"], json: true }],
    [{ action: "get", name: ["S0", "/a"], recursive: true }],
    [{ action: "show", name: ["S0"], files: true }],
    [{ action: "diff", name: ["S0", "S1"], checksum: true }],
    [{ action: "diff", name: ["S0"], files: true }],
  ])("%j is refused", (args) => expect(() => parseFilesRequest(args)).toThrow());
});

const named = (line: string): string => nameAsInGuest(line, ["/etc/x", "disk-1:/y"]);
test("messages of the rescue's programs name files as the guest has them", () => {
  expect(named("rm: cannot remove '/mnt/system1/srv/a': no")).toBe("rm: cannot remove '/srv/a': no");
  expect(named("mv: '/run/volumes/vg-data/a' to '/run/volumes/vg-data/b'")).toBe(
    "mv: 'vg-data:/a' to 'vg-data:/b'",
  );
  expect(named("tar: 1/sub: Cannot open")).toBe("tar: disk-1:/y/sub: Cannot open");
  expect(named("tar: 7/sub: Cannot open")).toBe("tar: 7/sub: Cannot open");
});

test("paths within others are restored once", () =>
  expect(withoutNested(["/a/b", "/a/", "/a", "/ab", "d:/a", "/c//d", "/c/d/e"])).toEqual([
    "/a/",
    "/ab",
    "d:/a",
    "/c//d",
  ]));

test("tar's complaints: names that cannot be on the host's filesystem, and others", () => {
  const end = "tar: Exiting with failure status due to previous errors\n";
  const long = "/usr/bin/tar: 0/a: Cannot mkdir: File name too long\n";
  expect(parseRefused(`${long}tar: 0/a/b: Cannot open: No such file or directory\n${end}`)).toEqual(["0/a"]);
  expect(parseRefused(`tar: 0/b: Cannot create symlink to 'x': Invalid argument\n${end}`)).toEqual(["0/b"]);
  expect(parseRefused(`${long}tar: 0/c/b: Cannot open: No such file or directory\n${end}`)).toBeUndefined();
  expect(parseRefused(`${long}tar: 0/d: Cannot write: No space left on device\n${end}`)).toBeUndefined();
  expect(parseRefused("")).toBeUndefined();
});
