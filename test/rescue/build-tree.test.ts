import { expect, test } from "bun:test";
import { parseLoaderList } from "../../src/rescue/build/libraries.ts";
import { TOOLS } from "../../src/rescue/build/tools.ts";
import { mergedPath } from "../../src/rescue/build/tree.ts";

test("parses the list of glibc's loader", () => {
  const text = `	linux-vdso.so.1 (0x00007fdb543ed000)
	libtinfo.so.6 => /lib/x86_64-linux-gnu/libtinfo.so.6 (0x00007fdb54268000)
	libnowhere.so.1 => not found
	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fdb54086000)
	/lib64/ld-linux-x86-64.so.2 (0x00007fdb543ef000)
`;
  expect(parseLoaderList(text)).toEqual([
    "/lib/x86_64-linux-gnu/libtinfo.so.6",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib64/ld-linux-x86-64.so.2",
  ]);
});

test("parses the list of musl's loader, and a loader by another path", () => {
  const text = `	/lib/ld-musl-x86_64.so.1 (0x7f3e4d0a2000)
	libreadline.so.8 => /usr/lib/libreadline.so.8 (0x7f3e4cf5c000)
	/lib64/ld-linux-x86-64.so.2 => /usr/lib64/ld-linux-x86-64.so.2 (0x7f0000000000)
`;
  expect(parseLoaderList(text)).toEqual([
    "/lib/ld-musl-x86_64.so.1",
    "/usr/lib/libreadline.so.8",
    "/usr/lib64/ld-linux-x86-64.so.2",
  ]);
});

test.each([
  ["/bin/bash", "/usr/bin/bash"],
  ["/sbin/lvm", "/usr/sbin/lvm"],
  ["/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libc.so.6"],
  ["/lib64/ld-linux-x86-64.so.2", "/usr/lib64/ld-linux-x86-64.so.2"],
  ["/usr/bin/env", "/usr/bin/env"],
  ["/init", "/init"],
  ["/etc/../bin/sh", "/usr/bin/sh"],
  ["/libexec/x", "/libexec/x"],
])("%s is at %s", (path, place) => {
  expect(mergedPath(path)).toBe(place);
});

test("each tool is one name, listed once", () => {
  expect(TOOLS.filter((name) => !/^[\w.+[-]+$/.test(name))).toEqual([]);
  expect(TOOLS.filter((name, index) => TOOLS.indexOf(name) !== index)).toEqual([]);
});
