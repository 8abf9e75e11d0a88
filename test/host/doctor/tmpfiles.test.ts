import { describe, expect, test } from "bun:test";
import { symlinkSync } from "node:fs";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { findAging, joinFiles } from "../../../src/host/doctor/tmpfiles.ts";
import { Temp } from "../../fixtures/temp.ts";

const PACKAGED = readFileSync(join(import.meta.dir, "../../../scripts/packaging/tmpfiles.d/vm.conf"), "utf8");

const TMP = "# /usr/lib/tmpfiles.d/tmp.conf\nq /tmp 1777 root root 10d\nq /var/tmp 1777 root root 30d\n";

describe("old files are removed", () => {
  test.each<[string, string, string]>([
    [TMP, "/tmp", "10d of /tmp"],
    [TMP, "/var/tmp", "30d of /var/tmp"],
    [TMP, "/tmp/user/1000", "10d of /tmp"],
    ["# /etc/tmpfiles.d/tmp.conf\nD! %T 1777 root root 1d\n", "/tmp", "1d of /tmp"],
    ["e /srv/* - - - 5d", "/srv/vms", "5d of /srv/vms"],
    ["q /tmp 1777 root root 0\n", "/tmp", "0 of /tmp"],
    // These are kept.
    [`${TMP}x /tmp/other-*\n`, "/tmp", "10d of /tmp"],
    [`${TMP}X /tmp/vm-*\n`, "/tmp", "10d of /tmp"],
    [`${TMP}# x /tmp/vm-*\n`, "/tmp", "10d of /tmp"],
    [`${TMP}x /var/tmp/vm-*\n`, "/tmp", "10d of /tmp"],
  ])("%j in %s: %s", (config, directory, found) => {
    const aging = findAging(config, directory);
    expect(aging && `${aging.age} of ${aging.path}`).toBe(found);
  });

  test("if a file itself is named", () => {
    expect(findAging(TMP, "/tmp")?.file).toBe("/usr/lib/tmpfiles.d/tmp.conf");
  });
});

describe("working files are kept", () => {
  test.each<[string, string]>([
    ["", "/tmp"],
    ["q /tmp 1777 root root -\n", "/tmp"],
    ["q /tmp 1777 root root\n", "/tmp"],
    [TMP, "/srv/vms"],
    [TMP, "/tmpfiles"],
    [`${TMP}x /tmp/vm-*\n`, "/tmp"],
    [`${TMP}x! "/tmp/vm-*"\n`, "/tmp"],
    [`${TMP}x %T/vm-????????-????????\n`, "/tmp"],
    [`${TMP}x /tmp\n`, "/tmp"],
    [`${TMP}x /tmp/mine\n`, "/tmp/mine"],
    [TMP + PACKAGED, "/tmp"],
    [TMP + PACKAGED, "/var/tmp"],
    [`${TMP}d /tmp/mine 0700 me me -\n`, "/tmp/mine"],
  ])("%j in %s", (config, directory) => {
    expect(findAging(config, directory)).toBeUndefined();
  });
});

test("a file overrides those of its name in lower directories; all are read in the order of names", () => {
  using temp = new Temp();
  temp.write("etc/b.conf", "strong");
  temp.write("lib/b.conf", "weak");
  temp.write("lib/a.conf", "first");
  temp.write("lib/c.conf", "hidden");
  temp.write("lib/note.txt", "none");
  symlinkSync("/dev/null", temp.path("etc/c.conf"));
  const text = joinFiles([temp.path("etc"), temp.path("lib")]);
  expect(text.split("\n").filter((line) => line !== "" && !line.startsWith("#"))).toEqual([
    "first",
    "strong",
  ]);
});
