import { afterAll, describe, expect, test } from "bun:test";
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { createMemoryFile } from "../../src/process/memory-file.ts";
import { FIRST_UID } from "../../src/qemu/jail.ts";
import { startQemuChild } from "../../src/qemu/jailed-child.ts";
import { Temp } from "../fixtures/temp.ts";
import { until } from "../fixtures/sandbox.ts";

const temp = new Temp();
afterAll(() => temp[Symbol.dispose]());

/** As qemu: it takes a while until a SIGTERM is handled. */
const PROGRAM = ["sh", "-c", 'sleep 1; trap "exit 0" TERM; while :; do sleep 0.1; done'];

/** Starts that in a jail, and dies at once. */
const STARTER = `
const [module, jail, directory, ...program] = process.argv.slice(1);
const { startQemuChild } = await import(module);
const parsed = JSON.parse(jail);
parsed.root.view = () => ({
  paths: [{ path: directory, access: "create" }, { path: "/usr", access: "read" }],
  links: ["bin", "sbin", "lib", "lib64"].map((name) => ["/" + name, "usr/" + name]),
});
const how = { cwd: directory, furtherFds: [], whenOrphaned: "TERM", keepOnInterrupt: true, stdout: "ignore", stderr: "ignore" };
const child = startQemuChild(program, parsed, how);
require("node:fs").writeSync(1, String(await child.settlePid()));
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

describe("a qemu that is the first process of its namespace, and handles no signal yet", () => {
  test.each(Object.keys(JAILS))("ends with the program that started it: %s", async (name) => {
    const module = require.resolve("../../src/qemu/jailed-child.ts");
    const argv = [process.execPath, "-e", STARTER, module, JSON.stringify(JAILS[name]), temp.top, ...PROGRAM];
    const { stdout, stderr } = Bun.spawnSync(argv);
    expect(stderr.toString()).toBe("");
    const pid = Number(stdout.toString());
    expect(pid).toBeGreaterThan(1);
    await until("it has ended", () => !existsSync(`/proc/${pid}`));
  });
});

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
