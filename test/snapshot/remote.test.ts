import { describe, expect, test } from "bun:test";
import { chooseRemote, groupByVm, isFromHere, type LocalVm } from "../../src/snapshot/remote/choose.ts";
import { decideRemote } from "../../src/snapshot/remote/keep.ts";
import { isCopyOf } from "../../src/snapshot/remote/push.ts";
import { formatUtc, identityTags, parseListed, type RemoteSnapshot } from "../../src/snapshot/remote/tags.ts";
import type { Snapshot } from "../../src/store/snapshots.ts";
import type { Manifest } from "../../src/store/manifest.ts";
import { failureOf } from "../fixtures/failure.ts";

const A = "aaaaaaaa-0000-4000-8000-000000000001";
const B = "bbbbbbbb-0000-4000-8000-000000000002";
const MADE = "2026-10-25T00:30:00.123Z";

const listed = (...tags: string[]) => ({
  id: "1".repeat(64),
  time: "2026-10-25T00:30:00Z",
  hostname: "h",
  tags: ["vm", "vm-name=my%20web", "vm-snapshot=S0", ...tags],
  paths: ["/srv/my web/backups/S0"],
});

describe("tags", () => {
  test("are read as written", () => {
    const tags = identityTags(A, { made: new Date(MADE), id: "0123456789abcdef" });
    expect(tags).toEqual([`vm-uuid=${A}`, "vm-id=0123456789abcdef", `vm-made=${MADE}`]);
    expect(parseListed(listed(...tags, "vm-protected", "vm-ram=65536"))).toEqual({
      id: "1".repeat(64),
      name: "S0",
      made: new Date(MADE),
      vm: "my web",
      uuid: A,
      snapshotId: "0123456789abcdef",
      host: "h",
      directory: "/srv/my web",
      protected: true,
      ramBytes: 65536,
    });
  });

  test("of an older version are fewer", () => {
    expect(parseListed(listed())).toMatchObject({
      made: new Date("2026-10-25T00:30:00Z"),
      uuid: null,
      snapshotId: null,
      protected: false,
      ramBytes: null,
    });
  });

  test.each([
    "vm-uuid=../x",
    "vm-id=xyz",
    "vm-made=yesterday",
    "vm-made=2026-99-99T00:00:00.000Z",
    "vm-ram=-1",
  ])("ignores %s", (tag) => {
    expect(parseListed(listed(tag))).toEqual(parseListed(listed()));
  });

  test("empty fields, which restic omits", () => {
    const { hostname: _hostname, ...rest } = { ...listed(), paths: null };
    expect(parseListed(rest)).toMatchObject({ name: "S0", host: "", directory: "." });
  });

  test("ignores other snapshots", () => {
    expect(parseListed({ ...listed(), tags: ["vm"] })).toBeUndefined();
    expect(parseListed({ ...listed(), tags: null })).toBeUndefined();
  });

  test("restic gets UTC", () => {
    expect(formatUtc(new Date(MADE))).toBe("2026-10-25 00:30:00");
  });
});

let count = 0;
const at = (day: number): Date => new Date(Date.UTC(2026, 0, day));
function item(name: string, day: number, more: Partial<RemoteSnapshot> = {}): RemoteSnapshot {
  const id = (++count).toString(16).padStart(8, "0") + "f".repeat(56);
  const place = { vm: "web", host: "h", directory: "/a/web" };
  return {
    id,
    name,
    made: at(day),
    uuid: null,
    snapshotId: null,
    protected: false,
    ramBytes: null,
    ...place,
    ...more,
  };
}

const empty: LocalVm = { name: "web", uuid: undefined, former: [] };
const vmA: LocalVm = { ...empty, uuid: A };

const choose = (all: RemoteSnapshot[], here: LocalVm, wanted?: string) => chooseRemote(all, here, wanted);
const [a1, a2, b3] = [
  item("S1", 1, { uuid: A }),
  item("S2", 2, { uuid: A }),
  item("S1", 3, { uuid: B, directory: "/b/web" }),
] as const;

describe("chooseRemote", () => {
  test("by UUID: ignores another VM of the same name", () => {
    expect(choose([a1, a2, b3], vmA)).toBe(a2);
    expect(choose([a1, a2, b3], vmA, "LAST")).toBe(a2);
    expect(choose([a1, a2, b3], vmA, "S1")).toBe(a1);
  });

  test("finds it under another name, host and directory", () => {
    expect(choose([a1, a2], { ...vmA, name: "renamed" })).toBe(a2);
  });

  test("one VM of that name: its newest", () => {
    expect(choose([a1, a2], empty)).toBe(a2);
    const [old1, old2] = [item("S0", 1), item("S1", 2)];
    expect(choose([old1, old2], empty)).toBe(old2);
  });

  test.each([undefined, "S1", "S2"])(
    "several VMs of that name, %j wanted: refused and listed",
    async (wanted) => {
      const error = await failureOf(() => choose([a1, a2, b3], empty, wanted));
      expect(error.exitCode).toBe(64);
      expect(error.message).toContain("2 VMs");
      expect(error.message).toContain(wanted === "S1" || wanted === undefined ? B : A);
      expect(error.hint).toMatch(/vm restore --from-remote [0-9a-f]{8}$/);
    },
  );

  test("without UUIDs, host and directory distinguish VMs", async () => {
    const error = await failureOf(() => choose([item("S0", 1), item("S0", 2, { host: "other" })], empty));
    expect(error.message).toContain("other:/a/web");
  });

  test("by id, in any case", () => {
    expect(choose([a1, a2, b3], empty, b3.id.slice(0, 8))).toBe(b3);
    expect(choose([a1, a2, b3], vmA, b3.id)).toBe(b3);
  });

  test("none with this UUID: lists those of that name, and takes none", async () => {
    const old = item("S0", 1);
    const error = await failureOf(() => choose([old], vmA));
    expect(error.exitCode).toBe(66);
    expect(error.message).toContain(old.id.slice(0, 8));
    expect(error.hint).toContain(old.id.slice(0, 8));
  });

  test("a renewed UUID: its own newest, and the former's by name", async () => {
    const renewed: LocalVm = { ...empty, uuid: B, former: [A] };
    expect(choose([a1, a2], renewed, "S2")).toBe(a2);
    expect((await failureOf(() => choose([a1, a2], renewed))).exitCode).toBe(66);
    expect(choose([a1, a2, b3], renewed, "S1")).toBe(b3);
  });

  test("pushed twice under one name: refused, with both ids", async () => {
    const twice = item("S1", 4, { uuid: A });
    const error = await failureOf(() => choose([a1, twice], vmA, "S1"));
    expect(error.exitCode).toBe(64);
    for (const { id } of [a1, twice]) expect(error.message).toContain(id.slice(0, 8));
  });

  test("removes control characters of a repository", async () => {
    const evil = [item("S\x1b[2J", 1, { uuid: A, host: "\x1b]0;x" }), b3];
    expect((await failureOf(() => choose(evil, empty))).message).not.toContain("\x1b");
  });
});

test("groupByVm: a UUID is one VM, from any host and directory", () => {
  const all = [item("S0", 1, { uuid: A }), item("S1", 2, { uuid: A, host: "h2" }), item("S0", 3)];
  expect(groupByVm(all).map((group) => group.map(({ name }) => name))).toEqual([["S0", "S1"], ["S0"]]);
});

test("isFromHere: the same name, host and directory, and no UUID", () => {
  const here = { host: "h", directory: "/a/web" };
  expect(isFromHere(empty, here, item("S0", 1))).toBe(true);
  for (const other of [{ vm: "x" }, { host: "x" }, { directory: "/x" }, { uuid: A }])
    expect(isFromHere(empty, here, item("S0", 1, other))).toBe(false);
});

const local = (snapshotId?: string, made = at(1)): Snapshot => ({
  name: "S0",
  dir: "",
  made,
  manifest: { id: snapshotId } as Manifest,
});

describe("isCopyOf", () => {
  const [id, other] = ["0123456789abcdef", "fedcba9876543210"];
  test("by id, with any time", () => {
    expect(isCopyOf(item("S0", 5, { snapshotId: id }), local(id))).toBe(true);
    expect(isCopyOf(item("S0", 1, { snapshotId: other }), local(id))).toBe(false);
  });

  test("else by name and whole second", () => {
    expect(isCopyOf(item("S0", 1), local(id, new Date(at(1).getTime() + 999)))).toBe(true);
    expect(isCopyOf(item("S0", 1), local(id, new Date(at(1).getTime() + 1000)))).toBe(false);
    expect(isCopyOf(item("S1", 1), local(id))).toBe(false);
  });
});

const kept = (all: RemoteSnapshot[], rules = { last: 1 }): string[] =>
  decideRemote(all, rules, at(20))
    .filter(({ keep }) => keep)
    .map(({ item: { name } }) => name);

describe("decideRemote", () => {
  test("keeps the newest and protected ones", () => {
    const all = [item("A", 1, { protected: true }), item("B", 2), item("C", 3)];
    expect(kept(all)).toEqual(["A", "C"]);
    expect(decideRemote(all, { last: 1 }, at(20)).at(-1)!.reasons).toEqual(["last", "newest"]);
  });

  test("counts two of one name as two", () => {
    expect(decideRemote([item("A", 1), item("A", 2)], { last: 1 }, at(20)).map(({ keep }) => keep)).toEqual([
      false,
      true,
    ]);
  });

  test("keeps the newest besides one in the future", () => {
    expect(kept([item("A", 1), item("B", 2), item("F", 30)])).toContain("B");
  });
});
