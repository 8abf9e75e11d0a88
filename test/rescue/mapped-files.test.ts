import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  lchownSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from "node:fs";
import { hostTarget, mapLinks, restoreMappedFiles, takeSharedFiles } from "../../src/rescue/mapped-files.ts";
import { remove } from "../../src/store/remove.ts";
import { Temp } from "../fixtures/temp.ts";

const LINK = 0o120777;

/** A share in the format of qemu's mapped-file: `NAME` → content and the guest's mode. */
function share(temp: Temp, files: Readonly<Record<string, [content: string, mode: number]>>): string {
  for (const [name, [content, mode]] of Object.entries(files)) {
    const at = name.lastIndexOf("/") + 1;
    const metadata = `out/${name.slice(0, at)}.virtfs_metadata/${name.slice(at)}`;
    temp.write(metadata, `virtfs.uid=1\nvirtfs.gid=2\nvirtfs.mode=${mode}\nvirtfs.rdev=0\n`);
    if ((mode & 0o170000) === 0o40000) temp.directory(`out/${name}`);
    else temp.write(`out/${name}`, content);
  }
  temp.write("out/.virtfs_metadata_root", "virtfs.mode=16877\n");
  return temp.path("out");
}

const modeOf = (path: string): string => (lstatSync(path).mode & 0o7777).toString(8);

describe("restoreMappedFiles", () => {
  test("sets modes without setuid and within the umask, creates symlinks that stay inside, and removes metadata", () => {
    using temp = new Temp();
    const out = share(temp, {
      bin: ["", 0o40755],
      "bin/tool": ["#!/bin/sh\n", 0o100755],
      "bin/setuid": ["", 0o106777],
      "bin/closed": ["", 0o100000],
      "bin/sibling": ["tool", LINK],
      "bin/up": ["../bin/./tool", LINK],
      "bin/whole": ["/tmp/.out/bin/tool", LINK],
      top: ["/tmp/.out", LINK],
      "bin/node": ["", 0o60644],
      secret: ["/etc/passwd", LINK],
      "bin/escape": ["../../x", LINK],
      "bin/device": ["", 0o20666],
    });
    writeFileSync(`${out}/plain`, "x");
    expect(restoreMappedFiles(out, 0o022, "/tmp/.out").toSorted()).toEqual(["bin/escape", "secret"]);
    expect(modeOf(`${out}/bin`)).toBe("755");
    expect(modeOf(`${out}/bin/tool`)).toBe("755");
    expect(modeOf(`${out}/bin/setuid`)).toBe("755");
    expect(modeOf(`${out}/bin/closed`)).toBe("600");
    expect(readlinkSync(`${out}/bin/sibling`)).toBe("tool");
    expect(readlinkSync(`${out}/bin/up`)).toBe("../bin/tool");
    expect(readlinkSync(`${out}/bin/whole`)).toBe("../bin/tool");
    expect(readlinkSync(`${out}/top`)).toBe(".");
    expect(readFileSync(`${out}/secret`, "utf8")).toBe("/etc/passwd");
    expect(lstatSync(`${out}/bin/node`).isFile()).toBe(true);
    for (const dir of [out, `${out}/bin`])
      expect(readdirSync(dir).filter((name) => name.includes("virtfs"))).toEqual([]);
  });

  test("leaves the mode of given files, only at the top", () => {
    using temp = new Temp();
    const out = share(temp, { d: ["", 0o40755], "d/job.log": ["", 0o100644], "job.log": ["", 0o100644] });
    chmodSync(`${out}/job.log`, 0o600);
    restoreMappedFiles(out, 0, "/tmp/.out", ["job.log"]);
    expect([modeOf(`${out}/job.log`), modeOf(`${out}/d/job.log`)]).toEqual(["600", "644"]);
  });

  test("converts symlinks back before a guest gets the share again", () => {
    using temp = new Temp();
    const out = share(temp, { d: ["", 0o40755], "d/f": ["text", 0o100644], "d/l": ["f", LINK] });
    restoreMappedFiles(out, 0o077, "/tmp/.out");
    mapLinks(out);
    expect(lstatSync(`${out}/d/l`).isFile()).toBe(true);
    expect(restoreMappedFiles(out, 0o077, "/tmp/.out")).toEqual([]);
    expect(readlinkSync(`${out}/d/l`)).toBe("f");
  });

  test("names that are not UTF-8, invalid metadata, and a deep tree", () => {
    using temp = new Temp();
    const out = share(temp, { f: ["x", 0o100755] });
    const odd = (name: string): Buffer =>
      Buffer.concat([Buffer.from(`${out}/`), Buffer.from(name, "latin1")]);
    writeFileSync(odd("a\xff"), "odd");
    writeFileSync(odd(".virtfs_metadata/a\xff"), "virtfs.mode=33261\n");
    temp.write("out/.virtfs_metadata/bad", "virtfs.mode=99999999999\n");
    temp.write("out/bad", "x");
    temp.directory(`out/${"d/".repeat(1000)}`);
    expect(restoreMappedFiles(out, 0o022, "/tmp/.out")).toEqual([]);
    expect(modeOf(`${out}/f`)).toBe("755");
    expect(readFileSync(odd("a\xff"), "utf8")).toBe("odd");
    remove(out);
    expect(() => lstatSync(out)).toThrow();
  });
});

describe("hostTarget", () => {
  test.each<[target: string, depth: number, host: string | undefined]>([
    ["a", 0, "a"],
    ["a//b/./", 0, "a/b"],
    ["../a", 1, "../a"],
    ["..", 1, ".."],
    ["../a", 0, undefined],
    ["../../a", 1, undefined],
    // `a` may be a symlink, too, so what follows it is unknown.
    ["a/../b", 3, undefined],
    ["a/../../../b", 1, undefined],
    ["/tmp/.out/a", 0, "a"],
    ["/tmp/.out/a", 2, "../../a"],
    ["/tmp/.out/../in", 2, undefined],
    ["/tmp/.outside", 2, undefined],
    ["/etc/passwd", 0, undefined],
    ["", 0, undefined],
    ["a\0b", 0, undefined],
    ["a\ufffd", 0, undefined],
  ])("%j at depth %d is %j", (target, depth, host) => {
    expect(hostTarget(target, depth, "/tmp/.out")).toBe(host);
  });
});

test.skipIf(process.getuid!() !== 0)(
  "what a qemu of its own user has created becomes root's; others' stays",
  () => {
    using temp = new Temp();
    const out = share(temp, { dir: ["", 0o40755], "dir/own": ["", 0o100644], other: ["", 0o100644] });
    for (const name of ["dir", "dir/own"]) lchownSync(`${out}/${name}`, 1_900_000_001, 1_900_000_001);
    lchownSync(`${out}/other`, 1234, 1234);
    takeSharedFiles(out);
    expect(["dir", "dir/own", "other"].map((name) => lstatSync(`${out}/${name}`).uid)).toEqual([0, 0, 1234]);
  },
);
