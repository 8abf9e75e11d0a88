import { expect, test } from "bun:test";
import { existsSync, lstatSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { execPipeline, execOver } from "../../src/rescue/build/host.ts";
import { packInitrd } from "../../src/rescue/build/initrd.ts";
import { SystemRoot } from "../../src/rescue/build/system-root.ts";
import { Tree } from "../../src/rescue/build/tree.ts";
import { exec } from "../../src/process/exec.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";
import { testWith } from "../fixtures/needs.ts";

test("has the tree's paths, modes and symlinks, whatever the umask", async () => {
  using temp = new Temp();
  const before = process.umask(0o077);
  try {
    const tree = new Tree(temp.directory("root"));
    await tree.seal();
    tree.write("/sbin/tool", "#!/bin/sh\n", 0o755);
  } finally {
    process.umask(before);
  }
  const modeOf = (path: string): string => (statSync(temp.path("root", path)).mode & 0o7777).toString(8);
  expect(["etc", "tmp", "root", "etc/passwd", "etc/shadow", "usr/sbin/poweroff"].map(modeOf)).toEqual([
    "755",
    "1777",
    "700",
    "644",
    "600",
    "755",
  ]);
  expect(readlinkSync(temp.path("root/lib64"))).toBe("usr/lib64");
  expect(modeOf("usr/sbin/tool")).toBe("755");
});

test("writes nothing through a symlink, nor outside", async () => {
  using temp = new Temp();
  const tree = new Tree(temp.directory("root"));
  tree.link("/usr/bin/awk", "/usr/bin/gawk");
  expect(readlinkSync(temp.path("root/usr/bin/awk"))).toBe("gawk");
  tree.write("/usr/bin/awk", "ours", 0o755);
  expect(lstatSync(temp.path("root/usr/bin/awk")).isFile()).toBe(true);
  expect(existsSync(temp.path("root/usr/bin/gawk"))).toBe(false);
  tree.write("/../../outside", "x", 0o644);
  expect(existsSync(temp.path("root/outside"))).toBe(true);
  expect((await failureOf(() => tree.write("../outside", "x", 0o644))).code).toBe("internal");
  expect(existsSync(temp.path("outside"))).toBe(false);
});

test("copies files of many directories to their own paths, the first of two of one name", async () => {
  using temp = new Temp();
  const tree = new Tree(temp.directory("root"));
  const files = [temp.write("a/one", "1"), temp.write("b/two", "2"), temp.write("a/three", "3")];
  await tree.copy(new SystemRoot("/"), [...files, temp.path("b/../a/one")]);
  for (const file of files)
    expect(readFileSync(temp.path("root", file), "utf8")).toBe(readFileSync(file, "utf8"));
});

test("uses few processes for many files, and omits none", async () => {
  using temp = new Temp();
  const names = Array.from({ length: 1001 }, (_, index) => `file-${index}`);
  await execOver(["touch", "--"], names, { cwd: temp.top });
  expect(names.every((name) => existsSync(temp.path(name)))).toBe(true);
});

test("reports the failure of any program of a pipeline", async () => {
  using temp = new Temp();
  const from = temp.write("from", "text\n");
  const what = "cannot do it";
  await execPipeline(from, [["cat"], ["tr", "a-z", "A-Z"]], temp.path("to"), { what });
  expect(readFileSync(temp.path("to"), "utf8")).toBe("TEXT\n");
  for (const [index, programs] of [
    [["false"], ["cat"]],
    [["cat"], ["false"]],
  ].entries()) {
    const failure = await failureOf(() => execPipeline(from, programs, temp.path(`to-${index}`), { what }));
    expect(failure.message).toContain("cannot do it: false exited with status 1");
  }
});

testWith("busybox")("the archive: all of it, all root's, odd names too", async () => {
  using temp = new Temp();
  const root = temp.directory("root");
  temp.write("root/init", "#!/bin/sh\n", 0o755);
  temp.write("root/a name/ü", "text");
  await packInitrd({ root, to: temp.path("initrd.img"), packer: undefined, scratch: temp.top });
  const { stdout } = await exec(["busybox", "cpio", "-t", "-F", temp.path("initrd.img")]);
  expect(stdout.split("\n").filter(Boolean)).toEqual([".", "a name", "a name/ü", "init"]);
  // Fields of each newc header: magic, inode, mode, uid, gid, in hexadecimal.
  const headers = [
    ...readFileSync(temp.path("initrd.img"), "latin1").matchAll(/070701.{8}(.{8})(.{8})(.{8})/g),
  ];
  expect(headers.map(([, , uid, gid]) => `${uid}:${gid}`)).toEqual(headers.map(() => "00000000:00000000"));
  expect(headers[3]![1]).toBe("000081ED");
});
