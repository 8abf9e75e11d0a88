/** Unpacked kernels and systems: their contents make the program read or write nothing outside. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { lstatSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { findBelow, readBelow } from "../../src/rescue/build/below.ts";
import { parseModuleGraph } from "../../src/rescue/build/module-graph.ts";
import { loadModuleGraph, stageModules } from "../../src/rescue/build/modules.ts";
import { SystemRoot } from "../../src/rescue/build/system-root.ts";
import { Tree } from "../../src/rescue/build/tree.ts";
import { failureOf } from "../fixtures/failure.ts";
import { Temp } from "../fixtures/temp.ts";

let temp: Temp;
beforeEach(() => {
  temp = new Temp();
  temp.write("outside/secret.ko", "secret");
  temp.write("pkg/lib/modules/6.1/kernel/9p.ko", "module");
  const links: [string, string][] = [
    ["kernel/inside.ko", "9p.ko"],
    ["kernel/link.ko", "../../../../../outside/secret.ko"],
    ["kernel/dangling.ko", "nowhere"],
    ["kernel/zero.ko", "/dev/zero"],
    ["out", "../../../../outside"],
  ];
  for (const [path, target] of links) symlinkSync(target, temp.path("pkg/lib/modules/6.1", path));
  Bun.spawnSync(["mkfifo", temp.path("pkg/lib/modules/6.1/kernel/pipe.ko")]);
});
afterEach(() => temp[Symbol.dispose]());

const modules = (): string => temp.path("pkg/lib/modules/6.1");

describe("a name in a kernel's list", () => {
  test.each([
    ["kernel/9p.ko", "kernel/9p.ko"],
    ["kernel/inside.ko", "kernel/9p.ko"],
    ["kernel/nothing.ko", undefined],
    ["kernel/dangling.ko", undefined],
  ])("%s is %s", (name, real) => {
    expect(findBelow(modules(), name, modules())).toBe(real && `${modules()}/${real}`);
  });

  test.each([
    ["../../../../outside/secret.ko", "is not a path below it"],
    ["kernel/../../../../../outside/secret.ko", "is not a path below it"],
    ["/etc/passwd", "is not a path below it"],
    ["kernel/link.ko", "resolves to"],
    ["out/secret.ko", "resolves to"],
    ["kernel/zero.ko", "resolves to /dev/zero"],
    ["kernel/pipe.ko", "is not a regular file"],
    ["kernel", "is not a regular file"],
  ])("%s is rejected, and named (74)", (name, why) => {
    const refusal = expect.objectContaining({
      exitCode: 74,
      message: expect.stringContaining(`${name} ${why}`),
    });
    expect(() => findBelow(modules(), name, modules())).toThrow(refusal);
    expect(() => readBelow(modules(), name, modules())).toThrow(refusal);
  });
});

test.each(["../../../../../../escape/9p.ko", "kernel/link.ko", "out/secret.ko", "kernel/pipe.ko"])(
  "modules.dep with %s writes nothing outside the staging tree",
  async (name) => {
    temp.write("pkg/lib/modules/6.1/modules.dep", `kernel/9p.ko: ${name}\n${name}:\n`);
    const graph = await loadModuleGraph(modules(), temp.directory("scratch"));
    const root = temp.directory("stage/root");
    const options = { root, version: "6.1", directory: modules(), top: modules(), kernel: "/boot/x", graph };
    const error = await failureOf(() => stageModules(options));
    expect(error).toMatchObject({ exitCode: 74, message: expect.stringContaining(name) });
    expect(readdirSync(temp.path("stage"))).toEqual(["root"]);
    expect(readdirSync(temp.path("stage/root"), { recursive: true }).join(" ")).not.toMatch(
      /secret|escape|\.ko/,
    );
  },
);

test("does not read a list that is a symlink out of the package, or a pipe", async () => {
  symlinkSync(temp.path("outside/secret.ko"), `${modules()}/modules.builtin`);
  expect(await failureOf(() => loadModuleGraph(modules(), temp.top))).toMatchObject({ exitCode: 74 });
  expect(parseModuleGraph("", "").paths.size).toBe(0);
});

describe("another system", () => {
  test("its files are its own: symlinks and directories are resolved within it", () => {
    temp.write("sys/data/a/file", "1");
    temp.write("sys/etc/passwd", "theirs");
    symlinkSync("/etc/passwd", temp.path("sys/data/absolute"));
    symlinkSync("../../../../../../etc/passwd", temp.path("sys/data/a/up"));
    symlinkSync("/etc/shadow", temp.path("sys/data/host"));
    symlinkSync("..", temp.path("sys/data/a/round"));
    const system = new SystemRoot(temp.path("sys"));
    expect(system.files(["/data"]).toSorted()).toEqual(["/data/a/file", "/data/a/up", "/data/absolute"]);
    Bun.spawnSync(["mkfifo", temp.path("sys/data/pipe")]);
    expect(() => system.files(["/data"])).toThrow("/data/pipe is not a regular file");
  });

  test("copies its symlinks as files", async () => {
    temp.write("sys/usr/share/x/file", "theirs");
    symlinkSync("/usr/share/x/file", temp.path("sys/usr/share/x/link"));
    symlinkSync(temp.path("outside/secret.ko"), temp.path("sys/usr/share/x/secret"));
    const tree = new Tree(temp.directory("tree"));
    await tree.copy(new SystemRoot(temp.path("sys")), ["/usr/share/x"]);
    expect(readdirSync(temp.path("tree/usr/share/x")).toSorted()).toEqual(["file", "link"]);
    expect(readFileSync(temp.path("tree/usr/share/x/link"), "utf8")).toBe("theirs");
  });

  test("no name points outside the staging tree", () => {
    const tree = new Tree(temp.directory("one/tree"));
    tree.link("../../escape", "/etc/passwd");
    tree.link("/../../escape2", "../../../etc/passwd");
    expect(readdirSync(temp.top).toSorted()).toEqual(["one", "outside", "pkg"]);
    expect(readdirSync(temp.path("one"))).toEqual(["tree"]);
    expect(lstatSync(temp.path("one/tree/escape")).isSymbolicLink()).toBe(true);
    expect(lstatSync(temp.path("one/tree/escape2")).isSymbolicLink()).toBe(true);
  });
});
