import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { lockVm } from "../../src/store/lock.ts";
import { fastClock } from "../fixtures/fast-clock.ts";
import { type Behaviour } from "../fixtures/qemu/fake-qemu.ts";
import { type Sandbox } from "../fixtures/sandbox.ts";
import {
  addRepository,
  buildOnce,
  DISK_BYTES,
  edit,
  qemuImg,
  seen,
  writeDisk,
  written,
} from "./snapshots.ts";

const names = (box: Sandbox): string[] =>
  readdirSync(box.path("backups"))
    .filter((name) => name !== "LAST")
    .toSorted();

/** S0 is gz; S1 is qcow2, S2 its child, S3 the child of S2; the guest's first bytes are 1, 12, 123, 1234. */
const chain = (conf = ""): Promise<Sandbox> =>
  buildOnce("chain", conf, async (box) => {
    await box.ok("create", "G");
    writeDisk(box, 0, 1);
    await box.ok("backup", "S0", "first");
    for (const at of [1, 2, 3]) {
      writeDisk(box, at, at + 1);
      await box.ok("backup", `S${at}`, "--format=qcow2");
    }
  });

/** Sets back the time of a snapshot. */
function setAge(box: Sandbox, name: string, days: number): void {
  const made = new Date(Date.now() - days * 86_400_000);
  const dir = box.path("backups", name);
  const sumOf = (file: string): string =>
    new Bun.CryptoHasher("sha256").update(readFileSync(join(dir, file))).digest("hex");
  edit(join(dir, "TS"), () => `${Math.floor(made.getTime() / 1000)}\n`);
  edit(join(dir, "manifest.json"), (bytes) =>
    JSON.stringify({ ...JSON.parse(bytes.toString()), made: made.toISOString() }),
  );
  edit(join(dir, "SHA256SUMS"), (bytes) =>
    bytes
      .toString()
      .split("\n")
      .map((line) =>
        line.replace(/^[0-9a-f]{64}(.*?(TS|manifest\.json))$/, (_all, rest, item) => sumOf(item) + rest),
      )
      .join("\n"),
  );
}

/** Damages a snapshot of a VM. */
type Spoil = (box: Sandbox) => unknown;

const spoilFile =
  (path: string, change: (bytes: Buffer) => string | Uint8Array): Spoil =>
  (box) =>
    edit(box.path("backups", path), change);
const gone =
  (path: string): Spoil =>
  (box) =>
    unlinkSync(box.path("backups", path));

const manifest = (name: string, change: (value: any) => void): Spoil =>
  spoilFile(`${name}/manifest.json`, (bytes) => {
    const value = JSON.parse(bytes.toString());
    change(value);
    return JSON.stringify(value);
  });

/** The action for each. */
const plan = async (box: Sandbox, ...words: string[]): Promise<string[]> =>
  (await box.json("prune", "--dry-run", ...words)).map(
    (item: any) => `${item.action} ${item.name}${item.into.length > 0 ? ` into ${item.into}` : ""}`,
  );

/** A VM with a snapshot, and an empty repository. */
async function withRepository(): Promise<Sandbox> {
  const box = await written();
  addRepository(box);
  await box.ok("backup", "S0", "first");
  return box;
}

const fail = (box: Sandbox, command: string, status: number, words: string): string =>
  box.write(join(box.top, `repo/fail-${command}`), `${status}\n${words}\n`);

const calls = (box: Sandbox): string[] =>
  readFileSync(join(box.top, "repo/calls"), "utf8").trim().split("\n");

describe("snapshots", () => {
  let box: Sandbox;
  beforeAll(async () => {
    box = await chain();
  });
  afterAll(() => box[Symbol.dispose]());

  test("list and show print the contents", async () => {
    const listed = await box.json("snapshots");
    expect(listed.map((item: any) => [item.name, item.format, item.parent, item.last, item.problem])).toEqual(
      [
        ["S0", "gz", null, false, null],
        ["S1", "qcow2", null, false, null],
        ["S2", "qcow2", "S1", false, null],
        ["S3", "qcow2", "S2", true, null],
      ],
    );
    expect(listed[0]).toMatchObject({ description: "first", guestBytes: DISK_BYTES, consistency: "offline" });
    const [shown] = await box.json("snapshots", "show", "S2");
    expect(shown).toMatchObject({ name: "S2", dependents: ["S3"], vm: (await box.json("identity")).uuid });
    expect(shown.summed.toSorted()).toEqual([
      "DESCRIPTION",
      "TS",
      "disk-0.qcow2",
      "guest.env",
      "manifest.json",
    ]);
    await box.ends(0, "snapshots show S0 S2", "first", "S1", "disk-0.qcow2");
    await box.ends(0, "snapshots", "NAME", "S3", "LAST");
  });

  test.each<[from: string, to: string, ranges: [number, number][]]>([
    ["S0", "S3", [[1 << 16, 3 << 16]]],
    ["S2", "S1", [[2 << 16, 1 << 16]]],
    ["S1", "S1", []],
  ])("diff %s %s", async (from, to, ranges) => {
    const { disks } = await box.json("snapshots", "diff", from, to);
    expect(disks).toEqual([
      {
        name: "disk-0.img",
        fromBytes: DISK_BYTES,
        toBytes: DISK_BYTES,
        changedBytes: ranges.reduce((sum, [, length]) => sum + length, 0),
        ranges,
      },
    ]);
    await box.ends(0, ["snapshots", "diff", from, to], "disk-0.img", "1.0 MiB");
    expect(readdirSync(box.tmp).length).toBe(1);
  });

  test("describe, protect, unprotect", async () => {
    await box.ok("snapshots", "describe", "S1", "another word");
    await box.ok("snapshots", "describe", "S1", "");
    expect(await box.json("snapshots", "show", "S1")).toMatchObject([{ description: "" }]);
    await box.ok("snapshots", "describe", "S1", "another word");
    await box.ok("snapshots", "protect", "S1");
    expect(await box.json("snapshots", "show", "S1")).toMatchObject([
      { description: "another word", protected: true },
    ]);
    await box.ends(0, "verify S1", "good");
    await box.ends(75, "snapshots rm S1 S2 S3", "protected");
    await box.ends(75, "snapshots rm --merge S1", "protected");
    await box.ok("snapshots", "unprotect", "S1");
    expect(await box.json("snapshots", "show", "S1")).toMatchObject([{ protected: false }]);
  });

  test.each<[line: string, status: number, printed: string]>([
    ["snapshots S0", 64, "show S0"],
    ["snapshots list S0", 64, "show S0"],
    ["snapshots show", 64, "NAME"],
    ["snapshots show S9", 66, "S9"],
    ["snapshots show ..", 64, ".."],
    ["snapshots diff S0", 64, "two names"],
    ["snapshots describe S0", 64, "TEXT"],
    ["snapshots describe S0 a b", 64, "TEXT"],
    ["snapshots rm --json S0", 64, "--json"],
    ["snapshots list --merge", 64, "--merge"],
    ["snapshots show --remote S0", 64, "--remote"],
    ["snapshots --by-name", 64, "--remote"],
    ["snapshots rm S1", 75, "S2"],
    ["snapshots rm S9", 66, "S9"],
    ["snapshots --remote", 78, "SNAPSHOT_REPO"],
    ["verify S9", 66, "S9"],
    ["verify --all S0", 64, "--all"],
    ["verify --remote --all", 64, "--remote"],
    ["verify --timeout=3", 64, "--boot"],
    ["verify --boot --timeout=0", 64, "--timeout"],
    ["verify --boot --boot-wait=(", 64, "--boot-wait"],
    ["prune", 64, "--keep-daily"],
    ["prune --keep-last=x", 64, "--keep-last"],
    ["prune --by-name", 64, "--remote"],
  ])("%s → %i", async (line, status, printed) => {
    await box.ends(status, line, printed);
    expect(names(box)).toEqual(["S0", "S1", "S2", "S3"]);
  });

  describe("verify finds", () => {
    test.each<[what: string, spoil: Spoil, words: string, printed: string]>([
      [
        "a flipped bit",
        spoilFile("S0/disk-0.img.gz", (bytes) => bytes.fill(0xaa, 30, 31)),
        "S0",
        "disk-0.img.gz",
      ],
      [
        "a truncated file",
        spoilFile("S0/disk-0.img.gz", (bytes) => bytes.subarray(0, -5)),
        "S0",
        "bytes instead of",
      ],
      ["a missing file", gone("S0/disk-0.img.gz"), "S0", "missing"],
      ["missing settings", gone("S0/guest.env"), "S0", "guest.env"],
      ["missing checksums", gone("S0/SHA256SUMS"), "S0", "SHA256SUMS"],
      ["empty settings", spoilFile("S0/guest.env", () => ""), "S0", "guest.env"],
      ["an invalid manifest", spoilFile("S0/manifest.json", () => "{"), "S0", "manifest.json"],
      ["a manifest of a newer version", manifest("S0", (value) => (value.version = 99)), "S0", "S0"],
      ["another parent in the manifest", manifest("S2", (value) => (value.parent = "S0")), "S2", "S0"],
      ["the snapshot as its own parent", manifest("S2", (value) => (value.parent = "S2")), "S2", "S2"],
      [
        "a truncated image",
        spoilFile("S2/disk-0.qcow2", (bytes) => bytes.subarray(0, 70_000)),
        "S2",
        "disk-0.qcow2",
      ],
      [
        "a damaged parent",
        spoilFile("S1/disk-0.qcow2", (bytes) => bytes.fill(1, 300, 400)),
        "S3",
        "its parent S2 is bad",
      ],
      ["a stray disk", (one) => one.write("backups/S0/disk-1.img.gz", "x"), "S0", "disk-1.img.gz"],
      [
        "a directory in it",
        (one) => mkdirSync(one.path("backups/S0/disk-7.img.gz")),
        "S0",
        "no regular file",
      ],
    ])("%s (74)", async (_what, spoil, words, printed) => {
      const kept = join(box.top, "kept");
      Bun.spawnSync(["cp", "-a", box.path("backups"), kept]);
      try {
        spoil(box);
        await box.ends(74, ["verify", "--deep", "--quiet", ...words.split(" ")], printed);
        const reports = await box.ends(74, ["verify", "--json", ...words.split(" ")], printed);
        expect(JSON.parse(reports.stdout).at(-1)).toMatchObject({ ok: false });
        await box.vm("snapshots").then((result) => expect(result.status).toBe(0));
      } finally {
        rmSync(box.path("backups"), { recursive: true });
        renameSync(kept, box.path("backups"));
      }
    });

    test("nothing (0), with a note for files that were added", async () => {
      const path = box.write("backups/S0/note", "mine");
      await box.ends(0, "verify --all --deep", "S0: good", "S3: good", "note");
      await box.ends(0, "verify --quiet");
      unlinkSync(path);
    });
  });

  describe("verify --boot", () => {
    test.each<[title: string, behaviour: Behaviour, words: string, status: number, printed: string]>([
      ["a login prompt", { console: "Welcome\r\n\u001b[1mguest login: \u001b[0m" }, "", 0, "login"],
      [
        "its agent",
        {
          // After input on the console.
          answers: {
            qmp_capabilities: (_args, qemu) =>
              void setTimeout(() => qemu.emit("VSERPORT_CHANGE", { open: true, id: "channel0-dev" }), 20),
          },
        },
        "",
        0,
        "agent",
      ],
      ["a match of --boot-wait", { console: "ready 42\n" }, "--boot-wait=^ready\\s[0-9]+$", 0, "--boot-wait"],
      ["nothing in time", { console: "GRUB loading\n" }, "--timeout=1", 124, "GRUB loading"],
      ["no output in time", {}, "--timeout=1", 124, "no output"],
      ["qemu does not start", { refuse: { status: 1, words: "bad drive" } }, "", 74, "bad drive"],
      [
        "a guest that shuts down",
        { answers: { qmp_capabilities: (_args, qemu) => void setTimeout(() => qemu.powerOff(), 20) } },
        "",
        74,
        "shut down",
      ],
    ])("%s", async (_title, behaviour, words, status, printed) => {
      box.qemu = behaviour;
      const count = box.qemus.length;
      using _clock = status === 124 ? fastClock() : undefined;
      await box.ends(status, `verify S3 --boot ${words}`, printed);
      expect(box.qemus.length).toBe(count + 1);
      // The copy has an isolated network, and is removed.
      expect(box.qemus.at(-1)!.argv.join(" ")).toContain("restrict=on");
      expect(readdirSync(box.tmp).length).toBe(1);
    });
  });
});

test("diff of a grown disk prints both sizes, and compares the common part", async () => {
  using box = await written();
  await box.ok("backup");
  qemuImg("resize", "-q", join(box.work, "disk-0.img"), String(2 * DISK_BYTES));
  await box.ok("backup");
  const { disks } = await box.json("snapshots", "diff", "S0", "S1");
  expect(disks).toMatchObject([{ fromBytes: DISK_BYTES, toBytes: 2 * DISK_BYTES, changedBytes: 0 }]);
  await box.ends(0, "snapshots diff S0 S1", "was 1.0 MiB");
});

test("diff and verify read snapshots while another command has the VM; --boot does not", async () => {
  using box = await chain();
  using _lock = await lockVm(box.host, "test");
  await box.ends(0, "snapshots diff S1 S0", "disk-0.img");
  await box.ends(0, "verify --all --deep", "S3");
  await box.ends(75, "verify --boot");
  expect(readdirSync(box.tmp).filter((name) => name.endsWith(".temporary"))).toEqual([]);
});

describe("snapshots rm", () => {
  test("removes unneeded ones, and points LAST to the newest remaining one", async () => {
    using box = await chain();
    await box.ends(0, "snapshots rm S3 S2", "S3", "S2");
    expect([names(box), readlinkSync(box.path("backups/LAST"))]).toEqual([["S0", "S1"], "S1"]);
    await box.ok("restore", "S1");
    await box.ends(75, "snapshots rm S1", "disk-0.img");
    await box.ends(75, "snapshots rm --merge S1", "disk-0.img");
    await box.ok("restore", "S1", "--copy");
    await box.ends(0, "snapshots rm S0 S1", "no snapshots left");
    expect([names(box), existsSync(box.path("backups/LAST"))]).toEqual([[], false]);
  });

  test("--merge merges the data into children, down to the last one", async () => {
    using box = await chain();
    await box.ends(0, "snapshots rm --merge S2", "S3");
    expect((await box.json("snapshots")).map((item: any) => [item.name, item.parent])).toEqual([
      ["S0", null],
      ["S1", null],
      ["S3", "S1"],
    ]);
    await box.ends(0, "verify --all --deep");
    await box.ends(0, "snapshots rm --merge S1 S0", "S3");
    await box.ends(0, "verify --all --deep");
    await box.ok("restore");
    expect(seen(box)).toEqual([1, 2, 3, 4]);
  });

  test("--merge of a damaged one is refused, and changes nothing (74)", async () => {
    using box = await chain();
    edit(box.path("backups/S2/disk-0.qcow2"), (bytes) => bytes.fill(7, 260, 270));
    await box.ends(74, "snapshots rm --merge S1", "S2");
    await box.ends(74, "snapshots rm --merge S2", "S3");
    expect(names(box)).toEqual(["S0", "S1", "S2", "S3"]);
  });
});

describe("prune", () => {
  test("by settings, by options, with and without merging", async () => {
    using box = await chain("KEEP_LAST=1\n");
    expect(await plan(box)).toEqual(["remove S0", "merge S1 into S3", "merge S2 into S3", "keep S3"]);
    expect(await plan(box, "--no-merge")).toEqual(["remove S0", "keep S1", "keep S2", "keep S3"]);
    expect(await plan(box, "--keep-last=2")).toEqual(["remove S0", "merge S1 into S2", "keep S2", "keep S3"]);
    expect(names(box)).toEqual(["S0", "S1", "S2", "S3"]);
  });

  test("removes unneeded snapshots, or merges them into kept ones", async () => {
    using box = await chain("KEEP_LAST=1\n");
    await box.ends(0, "prune", "keep S3", "remove S0");
    expect(names(box)).toEqual(["S3"]);
    await box.ends(0, "verify --all --deep");
    await box.ok("restore");
    expect(seen(box)).toEqual([1, 2, 3, 4]);
  });

  test("keeps protected, damaged and future ones, and reports them", async () => {
    using box = await chain();
    await box.ok("snapshots", "rm", "S3", "S2");
    await box.ok("backup", "S4");
    await box.ok("backup", "S5");
    await box.ok("backup", "S6");
    await box.ok("snapshots", "protect", "S0");
    rmSync(box.path("backups/S4/disk-0.img.gz"));
    setAge(box, "S5", -3);
    const { stderr } = await box.ends(0, "prune --keep-last=1", "keep S0", "keep S6");
    expect(names(box)).toEqual(["S0", "S4", "S5", "S6"]);
    for (const word of ["S4", "damaged", "S5", "future"]) expect(stderr).toContain(word);
  });

  test("by days and weeks", async () => {
    using box = await written();
    for (const [index, days] of [40, 20, 9, 2, 1, 0].entries()) {
      await box.ok("backup", `A${index}`);
      setAge(box, `A${index}`, days);
    }
    expect(await plan(box, "--keep-daily=2")).toEqual([
      "remove A0",
      "remove A1",
      "remove A2",
      "remove A3",
      "keep A4",
      "keep A5",
    ]);
    expect(await plan(box, "--keep-yearly=1")).toContain("keep A5");
    await box.ends(0, "prune --quiet --keep-daily=3");
    expect(names(box)).toEqual(["A3", "A4", "A5"]);
  });

  test("after a backup: reports removed ones; a later failure keeps the new one", async () => {
    using box = await written();
    await box.ok("backup");
    await box.ends(0, "backup --prune --keep-last=1 --quiet");
    expect(names(box)).toEqual(["S1"]);
    chmodSync(box.path("backups"), 0o700);
    await box.ends(0, "backup --prune --keep-last=1", "removed old snapshots", "S1");
  });

  test("without space for a merge, keeps its snapshot", async () => {
    using box = await chain();
    const real = Bun.which("qemu-img")!;
    box.program(
      "qemu-img",
      `case $1 in convert | rebase | commit) echo 'No space left on device' >&2; exit 1 ;; esac; exec ${real} "$@"`,
    );
    await box.ends(0, "prune --keep-last=1", "not merged");
    expect(names(box)).toEqual(["S1", "S2", "S3"]);
    box.program(
      "qemu-img",
      `case $1 in convert | rebase | commit) echo 'broken' >&2; exit 1 ;; esac; exec ${real} "$@"`,
    );
    await box.ends(74, "prune --keep-last=1", "broken");
    expect(names(box)).toEqual(["S1", "S2", "S3"]);
    await box.ends(74, "snapshots rm --merge S1", "broken");
    expect(names(box)).toEqual(["S1", "S2", "S3"]);
    rmSync(join(box.bin, "qemu-img"));
    await box.ends(0, "verify --all");
  });

  test("fails in a directory without a VM (66)", async () => {
    using box = await written();
    await box.ok("destroy");
    rmSync(box.host, { recursive: true });
    mkdirSync(box.host);
    await box.ends(66, "prune --keep-last=1");
    await box.ends(66, "snapshots");
    await box.ends(66, "verify");
  });
});

describe("a repository", () => {
  test("push, list, fetch into an empty directory", async () => {
    using box = await withRepository();
    await box.ends(0, "snapshots push S0", "S0");
    await box.ends(0, "snapshots push S0", "already");
    writeDisk(box, 1, 2);
    await box.ok("backup", "--format=qcow2", "--push");
    writeDisk(box, 2, 3);
    await box.ends(0, "backup --format=qcow2 --push --rate-limit=1M", "S2");
    const listed = await box.json("snapshots", "--remote");
    expect(listed.map(({ name }: any) => name)).toEqual(["S0", "S1", "S2"]);
    expect(listed[0]).toMatchObject({
      vm: "vm1",
      directory: box.host,
      uuid: (await box.json("identity")).uuid,
    });
    await box.ends(0, "snapshots --remote", "S2", "DIRECTORY");
    await box.ends(0, "verify --remote --deep", "3 snapshots");
    expect(calls(box)).toContain("check --read-data");
    // From another directory by the VM's name, or by id.
    const other = join(box.top, "elsewhere/vm1");
    mkdirSync(other, { recursive: true, mode: 0o700 });
    await box.ok("-d", other, "restore", "--from-remote");
    expect(seen(box, join(other, ".work/disk-0.img"))).toEqual([1, 2, 3]);
    expect(readdirSync(join(other, "backups")).toSorted()).toEqual(["LAST", "S1", "S2"]);
    await box.ok("destroy");
    await box.ok("restore", "--from-remote", listed[0].id.slice(0, 8));
    expect(seen(box)).toEqual([1]);
  });

  test("prune --remote by the rules; keeps the newest", async () => {
    using box = await withRepository();
    await box.ok("@backup", "@backup");
    await box.ok("snapshots", "push", "S0", "S1", "S2");
    const dry = await box.json("prune", "--remote", "--keep-last=1", "--dry-run");
    expect(dry.map(({ name, action }: any) => `${action} ${name}`)).toEqual([
      "remove S0",
      "remove S1",
      "keep S2",
    ]);
    await box.ends(0, "prune --remote --keep-last=1", "remove S0", "keep S2");
    expect(calls(box).map((line) => line.split(" ")[0])).toEqual(expect.arrayContaining(["forget", "prune"]));
    expect((await box.json("snapshots", "--remote")).map(({ name }: any) => name)).toEqual(["S2"]);
  });

  test("identifies snapshots without a UUID by host and directory", async () => {
    using box = await withRepository();
    await box.ok("snapshots", "push", "S0");
    const [file] = readdirSync(join(box.top, "repo"))
      .filter((name) => name.endsWith(".json"))
      .toSorted();
    edit(join(box.top, "repo", file!), (bytes) =>
      bytes
        .toString()
        .replace(/"vm-uuid=[^"]*",/, "")
        .replace(/"vm-id=[^"]*",/, ""),
    );
    await box.ends(0, "snapshots --remote", "--by-name");
    await box.ends(0, "snapshots --remote --by-name", "S0", "no UUID");
    await box.ends(0, "prune --remote --keep-last=1", "--by-name");
    // It is the same snapshot: it is tagged, not pushed again.
    await box.ok("snapshots", "push", "S0");
    expect(calls(box).filter((line) => line.startsWith("backup"))).toHaveLength(1);
    expect((await box.json("snapshots", "--remote"))[0].uuid).toBe((await box.json("identity")).uuid);
  });

  describe("fails:", () => {
    let shared: Sandbox;
    let kept: string;
    beforeAll(async () => {
      shared = await withRepository();
      kept = join(shared.top, "kept");
      Bun.spawnSync(["sh", "-c", 'mkdir "$0" && cp -a repo password bin vm1/backups "$0"', kept], {
        cwd: shared.top,
      });
    });
    // Restores the initial state.
    beforeEach(() => {
      Bun.spawnSync(
        [
          "sh",
          "-c",
          'rm -rf repo password bin unpacked vm1/backups && cp -a "$0"/* . && mv backups vm1/',
          kept,
        ],
        { cwd: shared.top },
      );
      shared.without();
    });
    afterAll(() => shared[Symbol.dispose]());

    test.each<
      [what: string, prepare: (box: Sandbox) => unknown, line: string, status: number, printed: string]
    >([
      [
        "no repository",
        (box) => rmSync(join(box.top, "repo"), { recursive: true }),
        "snapshots --remote",
        66,
        "repo",
      ],
      [
        "another password",
        (box) => edit(join(box.top, "password"), () => "x"),
        "snapshots --remote",
        78,
        "password",
      ],
      [
        "a password file that all users can read",
        (box) => chmodSync(join(box.top, "password"), 0o644),
        "snapshots --remote",
        78,
        "chmod 600",
      ],
      ["no password", (box) => rmSync(join(box.top, "password")), "snapshots --remote", 78, "password"],
      [
        "no restic",
        (box) => (rmSync(join(box.bin, "restic")), box.without("restic")),
        "snapshots --remote",
        69,
        "restic",
      ],
      [
        "another restic at work",
        (box) => fail(box, "snapshots", 11, "repository is already locked by PID 1"),
        "snapshots --remote",
        75,
        "another restic",
      ],
      [
        "a push that fails",
        (box) => fail(box, "backup", 1, "connection reset"),
        "snapshots push S0",
        74,
        "connection reset",
      ],
      [
        "an incomplete push",
        (box) => fail(box, "backup", 3, "cannot read"),
        "snapshots push S0",
        74,
        "verify",
      ],
      [
        "no space in backups",
        (box) => fail(box, "backup", 1, "write: no space left on device"),
        "snapshots push S0",
        73,
        "space",
      ],
      [
        "a backup that cannot be pushed",
        (box) => fail(box, "backup", 1, "refused"),
        "backup --push",
        74,
        "snapshots push S1",
      ],
      [
        "a damaged repository",
        (box) => fail(box, "check", 1, "pack is broken\nFatal: repository contains errors"),
        "verify --remote",
        74,
        "the repository is damaged: ",
      ],
      [
        "a repository that cannot be read",
        (box) => fail(box, "check", 1, "connection reset"),
        "verify --remote",
        74,
        "cannot check the repository: ",
      ],
      [
        "a locked repository",
        (box) =>
          fail(
            box,
            "check",
            1,
            "unable to create lock in backend: repository is already locked by PID 7 on host by root (UID 0, GID 0)\nlock was created at 2026-11-30 17:39:04 (11.9s ago)\nstorage ID 9314296e",
          ),
        "verify --remote",
        75,
        "cannot check the repository: the repository is locked by PID 7 on host by root, since 2026-11-30 17:39:04 (11.9s ago) UTC",
      ],
      ["no snapshot of this VM", () => {}, "restore --from-remote", 66, "no snapshots"],
      ["no snapshot of that name", () => {}, "restore --from-remote S7", 66, "S7"],
      ["no such local snapshot", () => {}, "snapshots push S7", 66, "S7"],
      ["no rule", () => {}, "prune --remote", 64, "--keep-daily"],
    ])("%s", async (_what, prepare, line, status, printed) => {
      await prepare(shared);
      await shared.ends(status, line, printed);
    });

    test.each<[what: string, spoil: (dir: string) => unknown, printed: string]>([
      [
        "another file instead",
        (dir) => writeFileSync(join(dir, "guest.env"), "GUESTNAME=evil\n"),
        "guest.env",
      ],
      ["a link", (dir) => (unlinkSync(join(dir, "TS")), symlinkSync("/etc/passwd", join(dir, "TS"))), "TS"],
      [
        "a large small file",
        (dir) => Bun.spawnSync(["truncate", "-s", "100M", join(dir, "DESCRIPTION")]),
        "DESCRIPTION",
      ],
      ["a file without a checksum", (dir) => writeFileSync(join(dir, "extra"), ""), "extra"],
      [
        "an invalid parent in the manifest",
        (dir) =>
          edit(join(dir, "manifest.json"), (bytes) =>
            bytes.toString().replace('"format"', '"parent":"S8","format"'),
          ),
        "S8",
      ],
    ])("refuses to fetch %s (74), and leaves nothing behind", async (_what, spoil, printed) => {
      await shared.ok("snapshots", "push", "S0");
      const repo = join(shared.top, "repo");
      const tar = join(
        repo,
        readdirSync(repo).find((name) => name.endsWith(".tar"))!,
      );
      const unpacked = join(shared.top, "unpacked");
      mkdirSync(unpacked);
      Bun.spawnSync(["tar", "-xf", tar, "-C", unpacked]);
      spoil(join(unpacked, "S0"));
      Bun.spawnSync(["tar", "-cf", tar, "-C", unpacked, "S0"]);
      await shared.ok("destroy");
      rmSync(shared.path("backups"), { recursive: true });
      await shared.ends(74, "restore --from-remote", printed);
      expect(existsSync(shared.path("backups"))).toBe(false);
      expect(existsSync(shared.path(".work"))).toBe(false);
    });
  });

  test("refuses a name that another snapshot has (73)", async () => {
    using box = await withRepository();
    await box.ok("snapshots", "push", "S0");
    await box.ok("snapshots", "rm", "S0");
    writeDisk(box, 1, 5);
    await box.ok("backup", "S0");
    await box.ends(73, "restore --from-remote S0", "S0");
    expect(statSync(box.path("backups/S0")).isDirectory()).toBe(true);
  });
});
