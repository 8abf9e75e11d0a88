import { expect, test } from "bun:test";
import { mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { basename } from "node:path";
import { makeTemporary } from "../../src/store/temporary.ts";
import { workPrefix } from "../../src/store/working-files.ts";
import { Temp } from "../fixtures/temp.ts";

test("a temporary directory of a killed command is removed by the next that makes one; others stay", () => {
  using temp = new Temp();
  const [host, tmpdir] = [temp.path("host"), temp.path("tmp")];
  const add = (name: string, of: string): string => {
    mkdirSync(temp.path("tmp", name), { recursive: true, mode: 0o700 });
    symlinkSync(of, temp.path("tmp", name, ".host"));
    return name;
  };
  mkdirSync(host);
  add(`${workPrefix(host)}00000001.temporary`, host);
  const kept = [
    add(`${workPrefix(host)}00000002`, host),
    add(`${workPrefix(host)}00000003.temporary`, temp.path("other")),
  ];
  using used = makeTemporary(host, tmpdir);
  using own = makeTemporary(host, tmpdir);
  expect(readdirSync(tmpdir).toSorted()).toEqual([...kept, basename(used.dir), basename(own.dir)].toSorted());
});
