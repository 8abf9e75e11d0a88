/** Special characters in HOSTDIR and TMPDIR: everything works, and none reaches a shell. */
import { beforeAll, expect, test } from "bun:test";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Guests } from "../guests/build.ts";
import { guests, type Sandbox } from "./harness.ts";
import { names, runNumber, sampled, shell, smallSandbox, startUntil, suite, untilQuiet } from "./tools.ts";

let iso: Guests;

/** Several special characters in one name, as each life cycle takes some boots. */
const NAMES: Record<string, string> = {
  "spaces, commas and quotes": ` two  words a,b,,c,file=x it's "quoted" `,
  "a newline, Cyrillic, backslashes": "two\nВиртуальная машина a\\b\\\\c\\",
  "a shell's, globs, braces, percent":
    "$(touch pwned) `touch pwned` $HOME; touch pwned & *?[a]{b,c} 100%s=%d%%:x",
  "a leading dash": "-rf",
  "a macro": "@HOSTDIR@",
  long: `long-${"x".repeat(200)}`,
};

/** The life cycle of a VM, and one run by hand. */
async function live(box: Sandbox, env: Record<string, string>, options: readonly string[]): Promise<void> {
  await box.ok([...options, "@create", "G", iso.installerIso, "@run", "@run"], { env });
  await shell("exec .work/run-vm.sh", box.host);
  expect(runNumber(box)).toBe(2);
  await box.ok(["@backup", "@run", "@restore", "@run"], { env });
  expect(runNumber(box)).toBe(3);
  const run = await startUntil(box, ["run", iso.hangIso], "HANGING", { env });
  await box.ok(["backup"], { env });
  expect((await box.vm(["restore"], { env })).status).toBe(75);
  await box.ok(["destroy", "--force"], { env });
  await run.done;
  await untilQuiet(box);
  expect(await shell("find . -name pwned", box.top)).toBe("");
}

suite("special characters in paths", () => {
  beforeAll(async () => {
    iso = await guests();
  });

  test.each(sampled(Object.entries(NAMES)))("%s: %j", async (_, name) => {
    using box = smallSandbox(name);
    const tmp = join(box.top, "tmp", name);
    mkdirSync(tmp, { mode: 0o700 });
    await live(box, { TMPDIR: tmp }, []);
    expect(names(tmp)).toEqual([]);
    expect(names(box.host)).toEqual(["backups", "guest.env"]);
  });

  test.each(sampled(["spaces, commas and quotes", "a newline, Cyrillic, backslashes", "long"], 0))(
    "in place: %s",
    async (kind) => {
      using box = smallSandbox(NAMES[kind]!);
      await live(box, {}, ["--inplace"]);
      expect(names(box.host)).toEqual(["backups", "guest.env"]);
    },
  );

  test("in a share, an image, a CD and the current directory at once", async () => {
    const name = `a, b,,"c" 'd' Ж $x\n=`;
    using box = smallSandbox(name);
    mkdirSync(box.path(name));
    cpSync(iso.haltIso, box.path("cd, $x.iso"));
    writeFileSync(box.path("x, y.img"), Buffer.alloc(1 << 20));
    const cwd = box.path(name);
    const args = ["-d", "..", "-s", `x:${cwd}`, "create", "-i", `VIRT=raw=${box.path("x, y.img")}`];
    await box.ok([...args, 'имя, "с" запятой', "cd, $x.iso"], { cwd });
    await box.ok(["-d", "..", "run"], { cwd });
    expect(readFileSync(box.path(".work/console.log"), "latin1")).toBe("BOOTED FROM CD\n");
  });
});
