import { expect, test } from "bun:test";
import { containTarget } from "../../src/files/contain-link.ts";

test.each<[served: string, link: string, target: string, shown: string | undefined]>([
  ["/", "lib", "usr/lib", "usr/lib"],
  ["/", "a/b/c", "../../x", "../../x"],
  ["/", "a/loop", ".", "."],
  ["/", "etc/mtab", "/proc/mounts", "../proc/mounts"],
  ["/", "etc/abs", "/etc/os-release", "os-release"],
  ["/", "a/root", "/", ".."],
  ["/", "root", "/", "."],
  // As in the guest, where `/..` is `/`.
  ["/", "srv/out", "../../../../etc/passwd", "../etc/passwd"],
  ["/", "out", "..", "."],
  ["/", "out", "/../../etc", "etc"],
  // What is before `..` may be a symlink to anywhere.
  ["/", "a/b/c", "x/..", undefined],
  ["/", "a/b/c", "x/../../..", undefined],
  ["/", "a/b/c", "/x/../y", undefined],
  ["/", "a/b/c", "./../x/./..", undefined],
  // Who reads it takes the first part.
  ["/", "out", "..\0/x", undefined],
  ["/", "a/b", "x\0", undefined],
  ["/", "long", "x/".repeat(2100), undefined],
  ["/", "a", "", ""],
  ["/srv/", "a/b", "/srv/c", "../c"],
  ["/srv", "a", "/srv", "."],
  ["/srv", "a", "/srvx/c", undefined],
  ["/srv", "a", "/etc/passwd", undefined],
  ["/srv", "a/b", "../../etc/passwd", undefined],
  ["/srv", "a/b", "../../srv/c", "../c"],
  ["/srv", "a/b", "../../../../srv/x", "../x"],
])("mounted: %s; %s -> %s is shown as %s", (served, link, target, shown) => {
  expect(containTarget(link, target, served)).toBe(shown);
});
