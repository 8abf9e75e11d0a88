import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { log } from "../../src/lib/log.ts";
import { describeJail } from "../../src/vm/status-text.ts";
import { planJail } from "../../src/vm/jail.ts";
import type { Machine } from "../../src/machine/types.ts";
import { machineWith } from "../qemu/machines.ts";
import { Temp } from "../fixtures/temp.ts";

let temp: Temp;
beforeEach(() => void (temp = new Temp()));
afterEach(() => temp[Symbol.dispose]());

const isRoot = process.getuid!() === 0;
const plan = (changes: Partial<Machine>, JAIL: "auto" | "off" = "auto") => {
  mkdirSync(temp.path("work"), { recursive: true });
  const machine = machineWith({
    nics: [],
    shares: [],
    disks: [],
    display: { kind: "serial" },
    cdrom: undefined,
    ...changes,
  });
  return planJail({ cacheDirectory: undefined }, { JAIL }, { machine, directory: temp.path("work") });
};

test("JAIL=off: qemu has all rights of its user", async () => {
  const { jail, record } = await plan({}, "off");
  expect(jail).toBeUndefined();
  expect(describeJail(record)).toBe("none; JAIL=off");
});

test("with all that a jail can have", () => {
  const record = { namespaces: true, network: true, noNewPrivileges: true, landlock: true, uid: 1000 };
  expect(describeJail({ ...record, reasons: [] })).toBe(
    "own root and namespaces, without a network, Landlock, uid 1000",
  );
});

describe("arguments of the user's own", () => {
  test.each([
    [["-kernel", "/boot/vmlinuz"], /^no new privileges, uid \d+; .*may reach outside: -kernel$/],
    [["-cdrom", "any.iso"], /^no new privileges.*: -cdrom$/],
    [["-device", "loader,file=x"], /^no new privileges.*: loader,file=x$/],
    [["-device", "intel-hda"], /^no new privileges.*: intel-hda$/],
    [["-device", "edu", "-m", "64"], /^own root/],
    [["-display", "gtk"], /^no new privileges.*: -display$/],
    [["-netdev", "bridge,id=n1"], /^none; .*starts a program: bridge,id=n1$/],
  ])("%j: %s", async (extraArgs, text) => {
    using warn = spyOn(log, "warn").mockReturnValue(undefined);
    const { record } = await plan({ extraArgs });
    // As root it is unconfined then, which is said once.
    if (isRoot && extraArgs[1] !== "edu")
      expect(warn).toHaveBeenCalledWith(expect.stringContaining("unconfined: further argument"));
    else expect(warn).not.toHaveBeenCalledWith(expect.stringContaining("unconfined"));
    expect(describeJail(record)).toMatch(Bun.which("bwrap") ? text : /not installed|none/);
  });
});

describe.skipIf(!Bun.which("bwrap"))("with bubblewrap", () => {
  const user = { number: 1, mac: undefined, link: "up", network: { kind: "user" }, forwards: [] } as const;

  test("without a card, a machine has no network; with one for the user-mode network it has the host's", async () => {
    expect((await plan({})).record).toMatchObject({ namespaces: true, network: true, noNewPrivileges: true });
    expect((await plan({ nics: [{ ...user, forwards: [] }] })).record.network).toBe(false);
    const passt = { ...user, network: { kind: "passt" as const }, forwards: [] };
    expect((await plan({ nics: [passt] })).record.network).toBe(true);
  });

  test("a directory of many files leaves no root of its own: each would be a mount", async () => {
    for (let number = 0; number <= 200; number++) temp.write(`work/${number}`, "");
    expect((await plan({})).record).toMatchObject({
      namespaces: false,
      reasons: [`over 200 files in ${temp.path("work")}`],
    });
  });

  test("a relative path is one in the working directory", async () => {
    temp.write("work/share/file", "");
    const shares: Machine["shares"] = [{ tag: "in", path: "share", writable: true, security: "none" }];
    const { jail } = await plan({ shares });
    expect(jail!.root!.view().paths).toContainEqual({
      path: temp.path("work/share"),
      access: "write",
      isDirectory: true,
    });
  });

  test("a share of the whole host leaves no root of its own", async () => {
    const shares: Machine["shares"] = [{ tag: "all", path: "/", writable: false, security: "none" }];
    expect((await plan({ shares })).record).toMatchObject({
      namespaces: false,
      reasons: ["the share all is the whole host"],
    });
  });

  test.skipIf(!isRoot)("root's qemus have users of their own, and few capabilities", async () => {
    const { jail, record } = await plan({});
    expect(jail!.user).toEqual({ uid: record.uid!, capabilities: ["dac_override"] });
    expect(record.uid!).toBeGreaterThanOrEqual(1_900_000_000);
    const shares: Machine["shares"] = [{ tag: "data", path: temp.top, writable: true, security: "none" }];
    const shared = await plan({ shares });
    expect(shared.jail!.user!.capabilities).toEqual(["dac_override", "chown", "fowner", "fsetid"]);
    expect(shared.record.reasons).toEqual(["qemu may change owners in the share data"]);
    const forwarded = await plan({ nics: [{ ...user, forwards: [] }] });
    expect(forwarded.jail!.user!.capabilities).toEqual(["dac_override", "net_bind_service"]);
  });
});
