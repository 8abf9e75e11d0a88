import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { findProgramProblem, NOT_INSTALLED, probeJail } from "../../src/qemu/probe-jail.ts";
import { startQemu } from "../../src/qemu/session.ts";
import { fastClock } from "../fixtures/fast-clock.ts";
import { Temp } from "../fixtures/temp.ts";

let temp: Temp;
const searchPath = process.env.PATH;
beforeEach(() => void (temp = new Temp()));
afterEach(() => {
  process.env.PATH = searchPath;
  temp[Symbol.dispose]();
});

/** A bwrap that records its starts. */
function install(rest: string): void {
  temp.write("bin/bwrap", `#!/bin/sh\necho x >>'${temp.path("starts")}'\n${rest}\n`, 0o755);
  process.env.PATH = `${temp.path("bin")}:${searchPath}`;
}
const starts = (): number =>
  existsSync(temp.path("starts")) ? readFileSync(temp.path("starts"), "utf8").length / 2 : 0;
const REFUSES = "echo 'bwrap: No permissions to create new namespace' >&2; exit 1";
const probe = () => probeJail(temp.path("cache"));

describe("what a jail can have on this host", () => {
  test("is tried once, and again after a failed start", async () => {
    install("exit 0");
    const first = await probe();
    expect(first).toMatchObject({ bwrap: temp.path("bin/bwrap"), problem: undefined });
    await probe();
    expect(starts()).toBe(1);
    first.forget();
    await probe();
    expect(starts()).toBe(2);
  });

  test("is tried again after a reboot, or under other restrictions", async () => {
    install("exit 0");
    temp.write("cache/jail", "another boot");
    await probe();
    await probe();
    expect(starts()).toBe(1);
  });

  test("is nothing where bwrap fails: the reason, each time", async () => {
    install(REFUSES);
    for (const count of [1, 2]) {
      expect(await probe()).toMatchObject({
        bwrap: undefined,
        problem: "bwrap: No permissions to create new namespace",
      });
      expect(starts()).toBe(count);
    }
  });

  test("is nothing where bwrap does not end", async () => {
    install("exec sleep 60");
    using _clock = fastClock(60);
    expect(await probe()).toMatchObject({ bwrap: undefined, problem: "bwrap: it has not ended after 30 s" });
  });

  test("is nothing without bwrap", async () => {
    process.env.PATH = temp.directory("bin");
    expect(await probe()).toMatchObject({ bwrap: undefined, problem: NOT_INSTALLED });
  });
});

/** A bwrap that starts what it is given, and a setpriv that says so or complains. */
const EXECUTES = 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"';
const installBoth = (setpriv: string): void => {
  install(EXECUTES);
  temp.write("bin/setpriv", `#!/bin/sh\n${setpriv}\n`, 0o755);
};

describe("Landlock", () => {
  const OLD = `case $* in *landlock*)
    echo "$0: unrecognized option '--landlock-access'" >&2; echo "Try '$0 --help'" >&2; exit 1 ;; esac`;

  test("is there where setpriv can do it, which is remembered", async () => {
    installBoth("exit 0");
    expect(await probe()).toMatchObject({ problem: undefined, landlock: true });
    expect(await probe()).toMatchObject({ problem: undefined, landlock: true });
    expect(starts()).toBe(1);
  });

  test("is not there otherwise: the jail is, and both are remembered until another setpriv", async () => {
    installBoth(OLD);
    for (const _ of [1, 2])
      expect(await probe()).toMatchObject({
        bwrap: temp.path("bin/bwrap"),
        problem: undefined,
        landlock: false,
      });
    expect(starts()).toBe(2);
    installBoth("exit 0");
    expect(await probe()).toMatchObject({ landlock: true });
    expect(starts()).toBe(3);
  });
});

const findOwn = async () => {
  const { bwrap } = await probe();
  return await findProgramProblem("own-qemu", bwrap!, temp.path("cache"));
};
const installQemu = (text: string): void => void temp.write("bin/own-qemu", `#!/bin/sh\n${text}\n`, 0o755);

describe("a qemu outside of /usr", () => {
  const LAST = 'while [ $# -gt 1 ]; do shift; [ "$1" != -- ] || last=$2; done';
  test("is tried once, again when it is replaced, and again after a failed start", async () => {
    install("exit 0");
    installQemu("exit 0");
    expect([await findOwn(), await findOwn()]).toEqual([undefined, undefined]);
    expect(starts()).toBe(2);
    installQemu("echo 'another one'");
    await findOwn();
    await findOwn();
    expect(starts()).toBe(3);
    (await probe()).forget();
    await findOwn();
    expect(starts()).toBe(5);
  });

  test("is tried each time while it does not start in a jail", async () => {
    install(`${LAST}; case $last in */own-qemu) echo 'no libx.so' >&2; exit 127 ;; esac; exit 0`);
    installQemu("exit 0");
    for (const count of [2, 3]) {
      expect(await findOwn()).toBe(`${temp.path("bin/own-qemu")} does not start so: no libx.so`);
      expect(starts()).toBe(count);
    }
  });
});

const MOUNTS_CHANGE = `n=$(cat "$0.n" 2>/dev/null || echo 0); echo $((n+1)) >"$0.n"`;
const MISSED = `echo "bwrap: Can't bind mount /oldroot/a on /newroot/a: Unable to find "/newroot/a" in mount table" >&2; exit 1`;

test.each([
  [
    "where bwrap fails at a start, qemu is started without a root of its own",
    REFUSES,
    ["bwrap: No permissions to create new namespace"],
  ],
  [
    "while the host's mounts change, bwrap is started again",
    `${MOUNTS_CHANGE}; [ $n -ge 2 ] || { ${MISSED}; }; ${EXECUTES}`,
    [],
  ],
  ["but not for ever", MISSED, [expect.stringContaining("in mount table")]],
])("%s", async (_title, bwrap, expected) => {
  install(bwrap);
  const failures: string[] = [];
  const qemu = await startQemu({
    argv: [process.execPath, join(import.meta.dir, "stubborn-qemu.ts"), "orderly"],
    jail: {
      root: {
        bwrap: temp.path("bin/bwrap"),
        offline: true,
        landlock: false,
        view: () => ({ paths: [], links: [] }),
        onFailure: (reason) => failures.push(reason),
      },
      setpriv: undefined,
      user: undefined,
    },
    directory: temp.top,
    monitor: temp.path("qmp.sock"),
    logPath: temp.path("qemu.log"),
  });
  expect(failures).toEqual(expected);
  expect(readFileSync(temp.path("qemu.log"), "utf8")).not.toContain("bwrap");
  await qemu.end();
});
