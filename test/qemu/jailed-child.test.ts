import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, closeSync, existsSync, openSync, readFileSync, rmSync } from "node:fs";
import { findByArgument } from "../../src/process/holders.ts";
import { createMemoryFile } from "../../src/process/memory-file.ts";
import { FIRST_UID } from "../../src/qemu/jail.ts";
import { startQemuChild } from "../../src/qemu/jailed-child.ts";
import { Temp } from "../fixtures/temp.ts";
import { until } from "../fixtures/sandbox.ts";

const temp = new Temp();
// Another user writes there, too.
chmodSync(temp.top, 0o777);
afterAll(() => temp[Symbol.dispose]());

/** As qemu: it takes a while until a SIGTERM is handled. */
const PROGRAM = ["sh", "-c", 'sleep 1; trap "exit 0" TERM; while :; do sleep 0.1; done'];

/** Runs while there is a file `keep`. */
const KEPT = ["sh", "-c", ": >up; while test -e keep; do sleep 0.1; done; : >down"];

/** Starts a program in a jail, writes the pid of bwrap or of that program, and dies at once. */
const STARTER = `
const [module, jail, whenOrphaned, printed, directory, ...program] = process.argv.slice(1);
const { startQemuChild } = await import(module);
const parsed = JSON.parse(jail);
parsed.root.view = () => ({
  paths: [{ path: directory, access: "create" }, { path: "/usr", access: "read" }],
  links: ["bin", "sbin", "lib", "lib64"].map((name) => ["/" + name, "usr/" + name]),
});
const how = { cwd: directory, furtherFds: [], whenOrphaned, keepOnInterrupt: true, stdout: "ignore", stderr: "ignore" };
const child = startQemuChild(program, parsed, how);
require("node:fs").writeSync(1, String(printed === "bwrap" ? child.pid : await child.settlePid()));
process.kill(process.pid, "SIGKILL");
`;

const bwrap = Bun.which("bwrap")!;
const user = { uid: FIRST_UID + 1, capabilities: [] };

const JAILS: Readonly<Record<string, object>> = {
  "of its own user": { root: { bwrap, offline: false } },
  ...(process.getuid!() === 0 && {
    "of another user": { root: { bwrap, offline: false }, user, setpriv: Bun.which("setpriv") },
  }),
};

const WHEN = [
  ["before bwrap has started it", "bwrap"],
  ["as the first process of its namespace, before it handles a signal", "qemu"],
] as const;

/** @returns the pid that it has written */
function startAndDie(
  jail: object,
  whenOrphaned: string,
  printed: string,
  program: readonly string[],
): number {
  const module = require.resolve("../../src/qemu/jailed-child.ts");
  const args = [module, JSON.stringify(jail), whenOrphaned, printed, temp.top, ...program];
  const { stdout, stderr } = Bun.spawnSync([process.execPath, "-e", STARTER, ...args]);
  expect(stderr.toString()).toBe("");
  const pid = Number(stdout.toString());
  expect(pid).toBeGreaterThan(1);
  return pid;
}

describe.each(Object.keys(JAILS))("a qemu in a jail, %s, whose starter is killed", (name) => {
  const jail = JAILS[name]!;

  test.each(WHEN)("ends with it: %s", async (_when, printed) => {
    const pid = startAndDie(jail, "TERM", printed, PROGRAM);
    await until("it has ended", () => !existsSync(`/proc/${pid}`));
    await until("nothing is left", () => findByArgument("", temp.top).length === 0);
  });

  test.each(WHEN)("keeps running without bwrap if it was to stay: %s", async (_when, printed) => {
    temp.write("keep", "");
    const pid = startAndDie(jail, "none", printed, KEPT);
    await until("it runs", () => existsSync(temp.path("up")));
    if (printed === "bwrap") await until("bwrap has ended", () => !existsSync(`/proc/${pid}`));
    else await until("bwrap has ended", () => nameOfParent(pid) !== "bwrap");
    expect(existsSync(temp.path("down"))).toBe(false);
    rmSync(temp.path("keep"));
    await until("it has ended", () => existsSync(temp.path("down")));
    for (const file of ["up", "down"]) rmSync(temp.path(file));
  });
});

function nameOfParent(pid: number): string {
  const parent = /^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1];
  return readFileSync(`/proc/${parent}/comm`, "utf8").trim();
}

test("with Landlock, qemu writes to the files that it inherits", async () => {
  const words = temp.path("words");
  const root = {
    bwrap: temp.write("bwrap", `#!/bin/sh\nprintf '%s\\n' "$@" >'${words}'\n`, 0o755),
    offline: true,
    landlock: true,
    view: () => ({ paths: [], links: [] }),
    onFailure: () => {},
  };
  const inherited = [createMemoryFile("ram", 1), openSync(temp.write("ram", ""), "r"), openSync("/", "r")];
  try {
    const jail = { root, setpriv: "setpriv", user: undefined };
    await startQemuChild(["true"], jail, { cwd: temp.top, furtherFds: inherited, whenOrphaned: "none" }).done;
  } finally {
    inherited.forEach(closeSync);
  }
  expect(readFileSync(words, "utf8").match(/^path-beneath:.*$/gm)).toEqual([
    "path-beneath:write-file:/proc/self/fd/4",
  ]);
});
