import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { NOT_INSTALLED, probeJail } from "../../src/qemu/probe-jail.ts";
import { startQemu } from "../../src/qemu/session.ts";
import { failureOf } from "../fixtures/failure.ts";
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

  test("is nothing without bwrap", async () => {
    process.env.PATH = temp.directory("bin");
    expect(await probe()).toMatchObject({ bwrap: undefined, problem: NOT_INSTALLED });
  });
});

test("a jail that fails at a start: the reason, a way out, and the next start tries again (74)", async () => {
  install(REFUSES);
  let forgotten = 0;
  const error = await failureOf(() =>
    startQemu({
      argv: ["true"],
      jail: {
        root: {
          bwrap: temp.path("bin/bwrap"),
          offline: true,
          view: () => ({ paths: [], links: [] }),
          forget: () => forgotten++,
        },
        setpriv: undefined,
        user: undefined,
      },
      directory: temp.top,
      monitor: temp.path("qmp.sock"),
      logPath: temp.path("qemu.log"),
    }),
  );
  expect(error.exitCode).toBe(74);
  expect(error.message).toBe(
    "qemu did not start: cannot confine it: bwrap: No permissions to create new namespace",
  );
  expect(error.hint).toContain("--no-jail");
  expect(forgotten).toBe(1);
});
