import { expect, test } from "bun:test";
import { copyFileSync, existsSync, mkdirSync, readdirSync, symlinkSync, utimesSync } from "node:fs";
import { basename, join } from "node:path";
import { removeAbandoned } from "../../src/store/abandoned.ts";
import { makeTemporary } from "../../src/store/temporary.ts";
import { workPrefix } from "../../src/store/working-files.ts";
import { startNamed } from "../fixtures/processes.ts";
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

/** A program of that name, with that working directory. */
function startIn(temp: Temp, cwd: string, name: string): Promise<Bun.Subprocess> {
  const program = temp.path(name);
  if (!existsSync(program)) copyFileSync(Bun.which("sleep")!, program);
  return startNamed(program, ["60"], { cwd });
}

test("a qemu that a killed command has left ends with its directory; other processes stay", async () => {
  using temp = new Temp();
  const host = temp.directory("host");
  const left = temp.directory(`tmp/${workPrefix(host)}00000001.temporary`);
  symlinkSync(host, join(left, ".host"));
  const abandoned = temp.directory("cache/.vm-partial-1");
  const other = await startIn(temp, left, "other");
  const qemus = await Promise.all([left, abandoned].map((cwd) => startIn(temp, cwd, "qemu-system-x86_64")));
  utimesSync(abandoned, 1, 1);
  using _made = makeTemporary(host, temp.path("tmp"));
  removeAbandoned(temp.path("cache"), ".vm-partial-");
  expect(await Promise.all(qemus.map(({ exited }) => exited))).toEqual([137, 137]);
  expect([existsSync(left), existsSync(abandoned)]).toEqual([false, false]);
  expect(other.exitCode).toBeNull();
  other.kill("SIGKILL");
  await other.exited;
});
