import { describe, expect, test } from "bun:test";
import { resolve } from "node:path";
import { buildQemuArgv } from "../../src/qemu/argv.ts";
import { buildRunScript } from "../../src/qemu/script.ts";
import { Temp } from "../fixtures/temp.ts";
import { MACHINES } from "./machines.ts";

const FAKES = resolve(import.meta.dir, "../fixtures/bin");

/** Runs a script with the real sh. @returns the argv of the fake qemu */
function runScript(temp: Temp, script: string): { directory: string; argv: string[]; stderr: string } {
  const path = temp.write("run-vm.sh", script);
  const { stdout, stderr } = Bun.spawnSync(["sh", path], {
    env: { PATH: `${FAKES}:/usr/bin:/bin`, HOME: "/nowhere" },
    cwd: "/",
  });
  const [directory = "", ...argv] = stdout.toString().split("\0").slice(0, -1);
  return { directory, argv, stderr: stderr.toString() };
}

describe("run by sh, run-vm.sh starts exactly the argv of", () => {
  test.each([...MACHINES])("$title", ({ machine, capabilities }) => {
    using temp = new Temp();
    const argv = buildQemuArgv(machine, capabilities);
    const started = runScript(temp, buildRunScript(argv, temp.top, `Runs the VM ${machine.name}`));
    expect(started).toEqual({ directory: temp.top, argv, stderr: "" });
  });
});

describe("run by sh, run-vm.sh passes on", () => {
  test.each([
    "",
    " ",
    "'",
    "''",
    `"`,
    "\\",
    "\\'",
    "a'b\"c`d$e",
    "$HOME ${HOME} $(id) `id`",
    "~",
    "~root/x",
    "*",
    "a\nb",
    "\n",
    "\ttab",
    "#no comment",
    "a=b",
    "!x",
    "%s",
    "a;b&c|d",
    "(x)",
    "{a,b}",
    "-n",
    "--",
    "Ёж 😀",
    "\r",
    "\x1b[1m",
  ])("%j", (word) => {
    using temp = new Temp();
    const argv = ["qemu-system-x86_64", word, "-x", word, word];
    expect(runScript(temp, buildRunScript(argv, temp.top, "")).argv).toEqual(argv);
  });
});

describe("run-vm.sh runs in", () => {
  test.each(["a b", "it's", "$HOME", "-dash", "new\nline", "Ёлка", "a,b=c"])("%j", (name) => {
    using temp = new Temp();
    const directory = temp.directory(name);
    expect(runScript(temp, buildRunScript(["qemu-system-i386"], directory, "x"))).toEqual({
      directory,
      argv: ["qemu-system-i386"],
      stderr: "",
    });
  });

  test("its directory only: nothing is started if that is gone", () => {
    using temp = new Temp();
    const { argv, stderr } = runScript(temp, buildRunScript(["qemu-system-i386"], temp.path("gone"), "x"));
    expect(argv).toEqual([]);
    expect(stderr).toContain("gone");
  });
});

test("does not run its comments", () => {
  using temp = new Temp();
  const script = buildRunScript(["qemu-system-i386"], temp.top, "VM a\ntouch x\n\n$(touch y) \\\nexit 1");
  expect(runScript(temp, script)).toEqual({ directory: temp.top, argv: ["qemu-system-i386"], stderr: "" });
});

test("has one option per line", () => {
  const argv = ["qemu-system-x86_64", "-name", "guest=a b", "-nodefaults", "-device", "VGA", "-x", "-1"];
  expect(buildRunScript(argv, "/tmp/vm 1", "First\nsecond")).toBe(
    [
      "#!/bin/sh",
      "# First",
      "# second",
      "cd '/tmp/vm 1' || exit",
      "exec qemu-system-x86_64 \\",
      "  -name 'guest=a b' \\",
      "  -nodefaults \\",
      "  -device VGA \\",
      "  -x -1",
      "",
    ].join("\n"),
  );
});
