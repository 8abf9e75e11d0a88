import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import {
  type Mark,
  type RunRecord,
  consistencyOf,
  explainCrash,
  newMark,
} from "../../src/store/mark-types.ts";
import { readMark, updateMark, writeMark } from "../../src/store/mark.ts";
import { formatMark, parseMark } from "../../src/store/mark-schema.ts";
import { Temp } from "../fixtures/temp.ts";

describe("consistencyOf", () => {
  test.each<[Partial<Mark>, string]>([
    [{}, "offline"],
    [{ lastRun: "powered-off" }, "offline"],
    [{ lastRun: "reset" }, "offline"],
    [{ lastRun: "killed" }, "crash-consistent"],
    [{ lastRun: "unknown" }, "crash-consistent"],
    [{ restored: "offline" }, "offline"],
    [{ restored: "crash-consistent" }, "crash-consistent"],
    [{ restored: "agent" }, "agent"],
    // The last run counts, not the restored snapshot.
    [{ restored: "crash-consistent", lastRun: "powered-off" }, "offline"],
    [{ restored: "offline", lastRun: "killed" }, "crash-consistent"],
  ])("%j is %s", (mark, consistency) => {
    expect(consistencyOf({ ...newMark(), ...mark })).toBe(consistency as ReturnType<typeof consistencyOf>);
  });
});

test.each<[Partial<Mark>, RegExp]>([
  [{ lastRun: "killed" }, /^the guest did not shut down/],
  [{ lastRun: "stopped", restored: "crash-consistent", unrecorded: true }, /^the guest did not shut down/],
  [{ lastRun: "unknown" }, /^the exit reason of the last run is unknown/],
  [{ restored: "crash-consistent" }, /^the restored snapshot is crash-consistent/],
  [{ restored: "crash-consistent", unrecorded: true }, /^the restored snapshot does not record/],
])("explains why a backup is crash-consistent: %j", (mark, reason) => {
  expect(explainCrash({ ...newMark(), ...mark })).toMatch(reason);
});

describe("the mark", () => {
  test("is private, and read as written", () => {
    using temp = new Temp();
    const mark: Mark = { ...newMark(), lastRun: "killed", files: ["a"], replaces: "/tmp/x" };
    writeMark(temp.top, mark);
    expect(readMark(temp.top)).toEqual(mark);
    expect(statSync(temp.path(".vm.json")).mode & 0o777).toBe(0o600);
  });

  test("is changed only where requested", () => {
    using temp = new Temp();
    const mark: Mark = { ...newMark(), restored: "offline", replaces: "/tmp/x" };
    writeMark(temp.top, mark);
    updateMark(temp.top, { lastRun: "unknown", replaces: undefined });
    expect(readMark(temp.top)).toEqual({
      vm: 1,
      created: mark.created,
      restored: "offline",
      lastRun: "unknown",
    });
  });

  test("is not written through a symlink", () => {
    using temp = new Temp();
    symlinkSync(temp.path("elsewhere"), temp.path(".vm.json"));
    expect(() => writeMark(temp.top, newMark())).toThrow();
    expect(existsSync(temp.path("elsewhere"))).toBe(false);
  });
});

/** A run with all fields. */
const RUN: RunRecord = {
  started: "2026-01-02T03:04:05.678Z",
  detached: true,
  pid: 4711,
  settings: { MEMORY: "1G", CORES: "2", NETWORKS: ["user", "user,link=down"], MAC: "" },
  forwards: [
    "hostfwd=tcp:127.0.0.1:2222-:22",
    "guestfwd=tcp:10.0.2.100:80-cmd:cat",
    "hostfwd=tcp:127.0.0.2:1-:1",
  ],
  diskAios: { 0: "io_uring", 12: "native" },
  display: { protocol: "spice", host: "127.0.0.1", port: 5900 },
  typed: {
    settings: { MEMORY: "1G", PORT: "", HOST: "::1" },
    additions: { FORWARDS: ["hostfwd=tcp::5555-:22"], IMAGES: ["VIRT=raw=/x=y"], SHARES: ["a:rw:/srv"] },
    ssh: true,
  },
};

const FULL: Mark = {
  vm: 1,
  created: "2026-01-02T03:04:05.678Z",
  lastRun: "powered-off",
  run: RUN,
  tpm: true,
  restored: "agent",
  unrecorded: true,
  base: { path: "/images/a.qcow2", format: "qcow2", bytes: 5, modified: "2026-01-02T03:04:05.678Z" },
  onSnapshot: { name: "S1", id: "0123", sum: "abc" },
  files: ["disk-0.img"],
  owns: ["disk-0.img", "console.log"],
  disks: ["disk-0.img"],
  replaces: "/tmp/vm-01234567-01234567",
};

/** The text of a mark with arbitrary fields, and a correct checksum. */
const signed = (fields: object): string => {
  const sum = createHash("sha256").update(JSON.stringify(fields)).digest("hex");
  return JSON.stringify({ ...fields, sum });
};

describe("a mark's text", () => {
  const text = formatMark(FULL);

  test("contains all fields", () => {
    expect(parseMark(text, "x")).toEqual(FULL);
  });

  test("of an earlier version, without a checksum, is read as well", () => {
    expect(parseMark(JSON.stringify(FULL), "x")).toEqual(FULL);
  });

  test("truncated anywhere is damaged, and never throws", () => {
    // The last line break is optional.
    for (let length = 0; length < text.length - 1; length++)
      expect(parseMark(text.slice(0, length), "x")).toMatchObject({ damaged: true, lastRun: "unknown" });
  });

  test("with any byte changed is damaged, or reads the same", () => {
    for (let at = 0; at < text.length; at++)
      for (const bit of [1, 4, 32]) {
        const changed =
          text.slice(0, at) + String.fromCharCode(text.charCodeAt(at) ^ bit) + text.slice(at + 1);
        const mark = parseMark(changed, "x");
        if (mark.damaged) expect(mark.lastRun).toBe("unknown");
        else expect(mark).toEqual(FULL);
      }
  });

  test.each(["[".repeat(100_000), `{"a":${"[".repeat(50_000)}${"]".repeat(50_000)}}`])(
    "nested deeply is damaged",
    (deep) => {
      expect(parseMark(deep, "x").damaged).toBe(true);
    },
  );

  test.each<[string, unknown]>([
    ["created", 5],
    ["created", "yesterday"],
    ["run", 5],
    ["run", null],
    ["run", { ...RUN, pid: -1 }],
    ["run", { ...RUN, pid: 1.5 }],
    ["run", { ...RUN, started: "2026-99-99T00:00:00Z" }],
    ["restored", "toString"],
    ["restored", { a: 1 }],
    ["base", { path: "relative", format: "qcow2" }],
    ["base", { path: "/a/../b", format: "qcow2" }],
    ["base", { path: "/a", format: "toString" }],
    ["onSnapshot", { name: "../S0" }],
    ["files", ["../x"]],
    ["files", [".."]],
    ["files", [""]],
    ["files", "disk-0.img"],
    ["owns", ["a/b"]],
    ["disks", [5]],
    ["replaces", "../x"],
    ["replaces", 7],
  ])("drops invalid fields: %s %j", (name, value) => {
    const mark = parseMark(signed({ ...FULL, [name]: value }), "x");
    expect(mark.damaged).toBeUndefined();
    expect(mark[name as keyof Mark]).toBe(name === "created" ? "" : (undefined as never));
    // Without a checksum that is the only sign of damage.
    expect(parseMark(JSON.stringify({ ...FULL, [name]: value }), "x").damaged).toBe(true);
  });

  test.each<[string, object, Partial<RunRecord>]>([
    ["a host that ssh takes for an option", { forwards: ["hostfwd=tcp:-Fx:2222-:22"] }, { forwards: [] }],
    ["an invalid rule", { forwards: ["x"] }, { forwards: [] }],
    ["two rules in one", { forwards: ["hostfwd=tcp::1-:1,hostfwd=tcp::2-:2"] }, { forwards: [] }],
    ["an invalid time", { ended: "never" }, { ended: RUN.started }],
    [
      "settings that are unknown, or not allowed",
      {
        typed: {
          settings: { MEMORY: "many", constructor: "x", CORES: "2", KEEPCD: 5 },
          additions: { IMAGES: ["x"], FORWARDS: "x", X: [] },
        },
      },
      { typed: { settings: { CORES: "2" }, additions: {}, ssh: false } },
    ],
    [
      "settings of the machine that are unknown, of another kind, or not allowed",
      { settings: { MEMORY: "many", STOP_TIMEOUT: "1", NETWORKS: ["x"], CORES: "3", constructor: "x" } },
      { settings: { CORES: "3" } },
    ],
    ["machine settings of another form", { settings: 5 }, { settings: {} }],
    ["nothing typed", { typed: 5 }, { typed: { settings: {}, additions: {}, ssh: false } }],
    ["an unknown way to read a disk", { diskAios: { 0: "aio" } }, { diskAios: undefined }],
    ["a disk without a number", { diskAios: { x: "native" } }, { diskAios: undefined }],
    ["an invalid port", { display: { protocol: "spice", host: "::1", port: 70000 } }, {}],
    ["a display's host that is an option", { display: { protocol: "vnc", host: "-x", port: 5900 } }, {}],
  ])("of a run drops %s", (_what, change, expected) => {
    const { display: _display, ...rest } = RUN;
    const base = "display" in change ? rest : RUN;
    expect(parseMark(signed({ ...FULL, run: { ...RUN, ...change } }), "x").run).toEqual({
      ...base,
      ...expected,
    } as RunRecord);
  });

  test("with an unknown end says so", () => {
    expect(parseMark(signed({ ...FULL, lastRun: "hibernated" }), "x").lastRun).toBe("unknown");
  });

  test("of a newer version is refused (78)", () => {
    for (const newer of [signed({ vm: 2 }), '{"vm":2}'])
      expect(() => parseMark(newer, "x")).toThrow("newer version");
  });
});

test("a damaged mark is rewritten by the next change, and the end stays unknown", () => {
  using temp = new Temp();
  writeMark(temp.top, FULL);
  writeFileSync(temp.path(".vm.json"), formatMark(FULL).replace("powered-off", "powered-oft"));
  expect(readMark(temp.top)).toMatchObject({ damaged: true, lastRun: "unknown", run: RUN });
  updateMark(temp.top, { replaces: undefined });
  const mark = readMark(temp.top)!;
  expect(mark.damaged).toBeUndefined();
  expect(consistencyOf(mark)).toBe("crash-consistent");
});
