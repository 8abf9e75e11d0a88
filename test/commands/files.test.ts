/** Files of a snapshot, with a rescue that the test plays: what comes from it is not trusted. */
import { afterEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
  closeSync,
  chmodSync,
} from "node:fs";
import { join } from "node:path";
import { lockUnread } from "../../src/store/reading.ts";
import type { FakeQemu } from "../fixtures/qemu/fake-qemu.ts";
import { until, type Sandbox } from "../fixtures/sandbox.ts";
import { buildOnce, writeDisk } from "./snapshots.ts";

/** S0 is gz, S1 qcow2; there is a rescue. */
const withFiles = (): Promise<Sandbox> =>
  buildOnce("files", "", async (box) => {
    await box.ok("create", "G");
    writeDisk(box, 0, 1);
    await box.ok("backup", "S0");
    await box.ok("backup", "S1", "--format=qcow2");
    const rescue = join(box.home, "vm/rescue-x86_64");
    for (const name of ["vmlinuz", "initrd.img"]) box.write(join(rescue, name), name);
    box.write(
      join(rescue, "guest.env"),
      "RESCUE_KERNEL=vmlinuz\nRESCUE_INITRD=initrd.img\nRESCUE_WARM=off\n",
    );
  });

interface Answer {
  status?: number;
  log?: string;
  /** Content of the disk for the result. */
  result?: Buffer | string;
  files?: Record<string, string>;
  look?: (qemu: FakeQemu) => void;
  /** Before it answers. */
  after?: Promise<void>;
  /** The job does not end. */
  hangs?: true;
}

/** What a test did not find as expected while its rescue ran. */
let failed: unknown;
afterEach(() => {
  const error = failed;
  failed = undefined;
  if (error !== undefined) throw error;
});

/** A rescue that answers so, each time the next one. */
function answers(box: Sandbox, ...all: Answer[]): void {
  let run = 0;
  box.qemu = {
    started: (qemu) => {
      const { status = 0, log = "", result = "", files = {}, look, after, hangs } = all[run++ % all.length]!;
      const out = join(qemu.directory, ".out");
      void (async () => {
        await until("the job is followed", () => qemu.isTaken("ask.sock"));
        const disk = /"filename":"([^"]+result\.raw)"/.exec(
          qemu.option("-blockdev", "result.raw") ?? "",
        )?.[1];
        if (disk !== undefined) {
          const fd = openSync(disk, "r+");
          writeSync(fd, Buffer.from(result), 0, Buffer.from(result).length, 0);
          closeSync(fd);
        }
        try {
          look?.(qemu);
        } catch (error) {
          qemu.end("guest-shutdown", 0);
          failed = error;
          return;
        }
        await after;
        writeFileSync(join(out, "STARTED"), "");
        if (hangs) return;
        writeFileSync(join(out, "job.log"), log);
        writeFileSync(join(out, "length"), `${Buffer.from(result).length}\n`);
        for (const [name, text] of Object.entries(files)) writeFileSync(join(out, name), text);
        writeFileSync(join(out, "STATUS"), `${status}\n`);
        qemu.end("guest-shutdown");
      })();
    },
  };
}

const line = (path: string, facts: string): string => `${path}//${facts}\0`;
const words = (qemu: FakeQemu): string => qemu.argv.join("\n");
const operation = (qemu: FakeQemu): string =>
  readFileSync(join(qemu.directory, ".in/operation"), "utf8").trim();

/** A tar archive of what `make` creates. */
function archive(box: Sandbox, make: (dir: string) => void, ...more: string[]): Buffer {
  const dir = join(box.top, "archived");
  mkdirSync(dir, { recursive: true });
  make(dir);
  const { stdout, exitCode, stderr } = Bun.spawnSync(["tar", "-cP", "-C", dir, ...more, "."], {
    env: { ...process.env },
  });
  if (exitCode !== 0) throw new Error(stderr.toString());
  Bun.spawnSync(["rm", "-rf", dir]);
  return stdout;
}
/** Members are called `0`, not `./0`. */
const PLAIN = "--transform=s,^\\./,,";

const scratch = (box: Sandbox): string[] =>
  readdirSync(box.tmp).filter((name) => name.endsWith(".temporary"));

describe("snapshots ls", () => {
  test("lists what the rescue found, escaped; the rescue has no network, and only throw-away disks", async () => {
    using box = await withFiles();
    answers(box, {
      result: `${line("b\x1b[31m", "f 4755 0 10 5 0 ")}${line("a", "l 777 0 0 1 0 x\ny")}`,
      look: ({ argv, directory }) => {
        const text = argv.join("\n");
        expect(text).not.toMatch(/netdev|virtio-net/);
        expect(text).toContain(
          `"read-only":true,"file":{"driver":"file","filename":"${box.path("backups/S1/disk-0.qcow2")}"`,
        );
        expect(readFileSync(join(directory, ".in/paths"), "utf8")).toBe("/etc\0");
        expect(readFileSync(join(directory, ".in/operation"), "utf8")).toBe("list\n");
        expect(existsSync(join(directory, ".in/one-level"))).toBe(true);
        expect(statSync(join(directory, ".in/mount-system")).mode & 0o777).toBe(0o700);
      },
    });
    const { stdout } = await box.ok("snapshots", "ls", "S1", "/etc");
    expect(stdout.split("\n").map((text) => text.replace(/^(\S+) .*\d\d:\d\d {2}/, "$1 "))).toEqual([
      String.raw`lrwxrwxrwx a -> x\ny`,
      String.raw`-rwsr-xr-x b\033[31m`,
      "",
    ]);
    answers(box, {
      result: `${line("b\x1b[31m", "f 4755 0 10 5 0 ")}${line("a", "l 777 0 0 1 0 x\ny")}`,
      look: ({ directory }) => expect(existsSync(join(directory, ".in/one-level"))).toBe(false),
    });
    expect(await box.json("snapshots", "ls", "S0", "/etc", "--recursive")).toMatchObject([
      { path: "a", type: "symlink", target: "x\ny" },
      { path: "b\x1b[31m", mode: "4755", gid: 10, size: 5 },
    ]);
    answers(box, { result: "disk-0p1\0ext4\x001048576\0/\0" });
    expect((await box.ok("snapshots", "ls", "S1")).stdout).toMatch(/^disk-0p1:\/ +ext4 +1\.0 MiB +\/$/m);
    expect(scratch(box)).toEqual([]);
  });

  test("an error of the job says why, without control characters", async () => {
    using box = await withFiles();
    answers(box, { status: 66, log: "no such file: /x\x1b[2J\n" });
    await box.ends(66, "snapshots ls S1 /x", "no such file: /x?[2J", "vm snapshots ls S1");
    answers(box, { status: 69, log: "the rescue has no GNU find\n" });
    await box.ends(69, "snapshots ls S1 /x", "no GNU find", "rescue build");
    answers(box, { status: 74, log: "tar: x: No space left on device\ncannot read\n" });
    await box.ends(73, "snapshots get S1 /x", "no space");
    answers(box, { status: 3, log: "" });
    await box.ends(74, "snapshots ls S1 /x", "status 3");
    answers(box, { result: "nonsense\0" });
    await box.ends(74, "snapshots ls S1 /x", "something else");
    answers(box, { files: { length: "999999999999\n" } });
    await box.ends(74, "snapshots ls S1 /x", "how long");
    await box.ends(66, "snapshots ls S9 /x", "S9");
    await box.ends(64, "snapshots ls S1 x", "not absolute", "vm snapshots ls S1");
    answers(box, { result: line("a", "f 644 0 0 1 0 "), files: { long: "2\n" } });
    await box.ends(74, "snapshots ls S1 /x", "2 paths of more than 4095 bytes left out", /-rw.* a$/m);
    answers(box, { status: 66, log: "no such file: /etc/f*\n", files: { nearest: "/etc" } });
    await box.ends(
      66,
      "snapshots ls S1 /etc/f*",
      "patterns are not expanded",
      "list /etc: vm snapshots ls S1 /etc",
    );
    answers(box, { status: 66, log: "no such file: /x\n", files: { nearest: "/e\x1b[2J" } });
    await box.ends(66, "snapshots ls S1 /x", /list the filesystems: vm snapshots ls S1$/m);
    // As Bun decodes \xff of a command line.
    await box.ends(
      66,
      "snapshots get S1 /e\ufffd to",
      "give a name that is not UTF-8 as ls shows it",
      "--escaped",
    );
    await box.ends(64, "snapshots ls", "takes the name of a snapshot");
    await box.ends(64, "snapshots ls S1 /a /b", "one path after");
    expect(scratch(box)).toEqual([]);
  });
});

test("a list that has no end is cut off in time: what there is, is printed", async () => {
  using box = await withFiles();
  const limits: string[] = [];
  answers(box, {
    result: `${line("b", "f 644 0 0 1 0 ")}${line("a", "f 644 0 0 1 0 ")}c//f 64`,
    files: { cut: "" },
    look: ({ directory }) => void limits.push(readFileSync(join(directory, ".in/seconds"), "utf8")),
  });
  const ls = "--timeout=40 snapshots ls S1 /big";
  await box.ends(
    124,
    ls,
    "time limit reached after 2 entries, the rest is missing",
    /-rw.* a\n-rw.* b$/m,
    "--timeout=3600",
  );
  expect(limits).toEqual(["30\n"]);
  answers(box, { files: { cut: "" } });
  const again = "vm --timeout=3600 snapshots ls S1 /big --recursive";
  await box.ends(
    124,
    `${ls} --recursive`,
    "after 0 entries",
    "list one of them: vm snapshots ls S1 /big\n",
    again,
  );
});

test("a rescue that was killed or interrupted is no job's: the message names what was not done", async () => {
  using box = await withFiles();
  answers(box, { hangs: true, look: (qemu) => void setTimeout(() => qemu.end(undefined, 0), 50) });
  const { stderr } = await box.ends(
    74,
    "snapshots ls S1 /x",
    "cannot list the files of S1: the rescue exited",
  );
  expect(stderr).not.toContain("the job");
});

test("is read without the VM's lock: all else works meanwhile, and what is read stays as it is", async () => {
  using box = await withFiles();
  const read = Promise.withResolvers<void>();
  answers(box, { after: read.promise, result: line("a", "f 644 0 0 5 0 ") });
  const { done } = box.start("snapshots", "ls", "S1", "/etc");
  await until("the rescue runs", () => box.qemus.length === 1);
  box.qemu = {};
  await box.ok("backup", "S2", "--format=qcow2");
  await box.ok("backup", "S3", "--format=qcow2");
  await box.ends(75, "snapshots rm S1 S2 S3", /cannot remove snapshots: S1 is being read by .* \(pid \d+\)/);
  await box.ends(75, "snapshots rm --merge S1", "S1 is being read by");
  await box.ends(75, "snapshots describe S1 text", "S1 is being read by");
  await box.ends(75, "rename other", "S1 is being read by");
  await box.ends(0, "prune --keep-last=1", "remove S0", /keep S1 {2}read by .* \(pid \d+\)/, "merge S2");
  await box.ok("destroy");
  read.resolve();
  expect(await done).toMatchObject({ status: 0, stdout: expect.stringMatching(/-rw.* a\n/) });
  await box.ok("snapshots", "rm", "--merge", "S1");
  expect(readdirSync(box.path("backups")).toSorted()).toEqual(["LAST", "S3"]);
  expect(scratch(box)).toEqual([]);
});

test("a snapshot that is being removed is waited for, and then not found", async () => {
  using box = await withFiles();
  const dir = box.path("backups/S1");
  const lock = lockUnread([{ name: "S1", dir }], "cannot");
  const { done } = box.start("snapshots", "ls", "S1", "/etc");
  await Bun.sleep(100);
  renameSync(dir, box.path("gone"));
  lock[Symbol.dispose]();
  expect(await done).toMatchObject({ status: 66 });
  expect(box.qemus.length).toBe(0);
});

describe("snapshots get", () => {
  test("a directory and a file, as cp does; nothing is overwritten; setuid bits are dropped", async () => {
    using box = await withFiles();
    const result = archive(
      box,
      (dir) => {
        mkdirSync(join(dir, "0/below"), { recursive: true });
        writeFileSync(join(dir, "0/below/set"), "x");
        chmodSync(join(dir, "0/below/set"), 0o4755);
        symlinkSync("/etc/passwd", join(dir, "0/link"));
        chmodSync(join(dir, "0"), 0o555);
        writeFileSync(join(dir, "1"), "fstab\n");
        utimesSync(join(dir, "1"), 1000, 1000);
      },
      PLAIN,
    );
    answers(box, { result, files: { skipped: "2\n" } });
    mkdirSync(box.path("to"));
    await box.ends(0, "snapshots get S1 /srv /etc/fstab to", "copied 2 paths", "2 special files left out");
    expect(readFileSync(box.path("to/fstab"), "utf8")).toBe("fstab\n");
    expect(statSync(box.path("to/fstab")).mtimeMs).toBe(1_000_000);
    expect(statSync(box.path("to/srv")).mode & 0o777).toBe(0o555);
    expect(statSync(box.path("to/srv/below/set")).mode & 0o7777).toBe(0o755);
    expect(lstatSync(box.path("to/srv/link")).isSymbolicLink()).toBe(true);
    expect(readdirSync(box.path("to")).toSorted()).toEqual(["fstab", "srv"]);
    const started = box.qemus.length;
    await box.ends(73, "snapshots get S1 /etc/fstab to", "exists");
    await box.ends(66, "snapshots get S1 /a /b nowhere", "no such directory");
    await box.ends(66, "snapshots get S1 /a nowhere/x", "no such directory");
    await box.ends(64, "snapshots get S1 / to", "no name");
    await box.ends(64, "snapshots get S1 /a/x /b/x to", "two paths");
    expect(box.qemus.length).toBe(started);
    chmodSync(box.path("to/srv"), 0o755);
  });

  test("an archive of a rescue that a guest took over writes nothing outside", async () => {
    using box = await withFiles();
    box.write("victim", "old");
    const result = archive(
      box,
      (dir) => {
        mkdirSync(join(dir, "0"));
        symlinkSync(box.host, join(dir, "0/out"));
        writeFileSync(join(dir, "evil"), "new");
        writeFileSync(join(dir, "2"), "not asked for");
      },
      PLAIN,
      `--transform=s,^evil$,0/out/victim,`,
      `--transform=s,^2$,../../victim,`,
    );
    answers(box, { result });
    await box.vm("snapshots", "get", "S1", "/srv", "copy");
    expect(box.read("victim")).toBe("old");
    expect(readdirSync(box.host).filter((name) => name.startsWith(".vm-partial"))).toEqual([]);
    answers(box, { result: Buffer.from("no archive at all") });
    await box.ends(74, "snapshots get S1 /srv other", "tar");
    expect(existsSync(box.path("other"))).toBe(false);
    expect(scratch(box)).toEqual([]);
  });

  test("one file to standard output, tamed on a terminal", async () => {
    using box = await withFiles();
    const one = archive(box, (dir) => writeFileSync(join(dir, "0"), "text\x1b[2J\0\n"), PLAIN);
    answers(box, { result: one });
    expect((await box.ok("snapshots", "get", "S1", "/x", "-")).stdout).toBe("text\x1b[2J\0\n");
    const pipe = archive(box, (dir) => Bun.spawnSync(["mkfifo", join(dir, "0")]), PLAIN);
    answers(box, { result: pipe });
    await box.ends(66, "snapshots get S1 /x -", "no regular file or directory");
    await box.ends(64, "snapshots get S1 /x /y -", "one path");
  });

  test("a directory to standard output is an archive, without what fills the disk of the result", async () => {
    using box = await withFiles();
    const tree = archive(box, (dir) => mkdirSync(join(dir, "srv")), PLAIN);
    const files = { archive: `${tree.length}\n` };
    answers(box, {
      result: Buffer.concat([tree, Buffer.from("more")]),
      files,
      look: (qemu) => expect(readFileSync(join(qemu.directory, ".in/stream"), "utf8")).toBe("srv\0"),
    });
    expect((await box.ok("snapshots", "get", "S1", "/var/srv", "-")).stdout).toBe(tree.toString());
    box.terminal = true;
    await box.ends(64, "snapshots get S1 /var/srv -", "not for a terminal");
    box.terminal = false;
    answers(box, { files: { archive: "99999999999999\n" } });
    await box.ends(74, "snapshots get S1 /var/srv -", "cut off");
  });

  test("pipes of an archive never get to the host, and names it cannot have leave the rest", async () => {
    using box = await withFiles();
    const long = "n".repeat(200);
    const result = archive(
      box,
      (dir) => {
        mkdirSync(join(dir, "0", long), { recursive: true });
        writeFileSync(join(dir, "0", long, "below"), "");
        writeFileSync(join(dir, "0/good"), "good");
        Bun.spawnSync(["mkfifo", join(dir, "0/pipe")]);
      },
      PLAIN,
      `--transform=s,${long},${long}${long},`,
    );
    answers(box, { result, files: { long: "1\n" } });
    await box.ends(74, "snapshots get S1 /srv copy", "1 path of more than 4095 bytes left out");
    expect(readdirSync(box.path("copy"))).toEqual(["good"]);
    answers(box, { result });
    await box.ends(
      74,
      "snapshots get S1 /srv other",
      "cannot be on this filesystem; the rest is there",
      "/srv/nn",
    );
    expect(box.read("other/good")).toBe("good");
  });

  test("what a killed get has left beside its destination is removed by the next one", async () => {
    using box = await withFiles();
    const left = box.path(".vm-partial-get-0000");
    mkdirSync(join(left, "0"), { recursive: true });
    utimesSync(left, 1, 1);
    answers(box, { result: archive(box, (dir) => writeFileSync(join(dir, "0"), "x"), PLAIN) });
    await box.ok("snapshots", "get", "S1", "/x", "new");
    expect(existsSync(left)).toBe(false);
    expect(box.read("new")).toBe("x");
  });
});

test("snapshots diff --files compares two listings", async () => {
  using box = await withFiles();
  const before = "a//f 644 0 0 1 1 \0b//f 644 0 0 1 1 \0";
  const after = "b//f 644 0 0 2 1 \0c\n//d 755 0 0 1 1 \0";
  answers(box, { result: before }, { result: after });
  expect((await box.ok("snapshots", "diff", "--files", "S0", "S1")).stdout).toBe("D  /a\nM  /b\nA  /c\\n\n");
  expect(await box.json("snapshots", "diff", "--files", "--checksum", "S0", "S1")).toMatchObject([
    { change: "D", from: { path: "a" } },
    { change: "M", from: { size: 1 }, to: { size: 2 } },
    { change: "A", to: { path: "c\n", type: "directory" } },
  ]);
});

test.each([
  [String.raw`vg-a:/s\tr`, "vg-a:/s\tr\0", String.raw`D  vg-a:/s\tr/a`],
  ["/srv/", "/srv/\0", "D  /srv/a"],
])("snapshots diff --files compares what is below %s", async (path, asked, printed) => {
  using box = await withFiles();
  const look = ({ directory }: FakeQemu): void =>
    expect(readFileSync(join(directory, ".in/paths"), "utf8")).toBe(asked);
  answers(box, { result: "a//f 644 0 0 1 1 \0", look }, { result: "", look });
  const { stdout } = await box.ok("snapshots", "diff", "--files", "--escaped", "S0", "S1", path);
  expect(stdout).toBe(`${printed}\n`);
});

test("snapshots diff --files of one file names it; both snapshots must exist before the rescue is started", async () => {
  using box = await withFiles();
  await box.ends(66, "snapshots diff --files S0 S9", "no such snapshot: S9");
  expect(box.qemus).toEqual([]);
  answers(box, { result: "//f 644 0 0 1 1 \0" }, { result: "//f 644 0 0 2 1 \0" });
  expect((await box.ok("snapshots", "diff", "--files", "S0", "S1", "/etc/fstab")).stdout).toBe(
    "M  /etc/fstab\n",
  );
});

describe("restore --only", () => {
  test("packs in one run, without the working disks, and unpacks in another", async () => {
    using box = await withFiles();
    answers(
      box,
      {
        look: (qemu) => {
          expect(operation(qemu)).toBe("pack-all");
          expect(words(qemu)).not.toContain(`${box.work}/disk-0.img`);
        },
      },
      {
        look: (qemu) => {
          expect(operation(qemu)).toBe("unpack");
          expect(words(qemu)).toContain(`${box.work}/disk-0.img`);
          expect(words(qemu)).not.toContain("netdev");
        },
      },
    );
    await box.ends(0, "restore --only=/etc --only=/srv S1", "restored 2 paths of S1");
    expect(scratch(box)).toEqual([]);
    expect((await box.ok("events")).stdout).toMatch(/restored: S1.*files: \/etc \/srv\n$/);
    // No guest has run.
    expect(await box.json("status")).toMatchObject({ state: "stopped", lastEnd: null });
    answers(box, {}, { status: 73, log: "No space left on device\n" });
    await box.ends(73, "restore --only=/etc", "no space left in the guest's filesystem");
    const full =
      "tar: 0/a: Wrote only 1024 of 10240 bytes\ntar: 0/b: Cannot open: x\ntar: 0/c: Cannot open: x\n";
    answers(box, {}, { status: 74, log: `${full}tar: Exiting with failure status\ncannot write /etc\n` });
    await box.ends(73, "restore --only=/etc", "no space left in the guest's filesystem");
  });

  test("says first what it replaces by which snapshot; --dry-run checks in both, and changes nothing", async () => {
    using box = await withFiles();
    const found: Answer = {
      look: (qemu) => {
        expect(operation(qemu)).toBe("find");
        expect(words(qemu)).not.toContain(`${box.work}/disk-0.img`);
      },
    };
    const checked: Answer = {
      look: (qemu) => {
        expect(operation(qemu)).toBe("check");
        expect(words(qemu)).toContain(
          `"backing":{"driver":"qcow2","read-only":true,"file":{"driver":"file","filename":"${box.work}/disk-0.img","read-only":true}`,
        );
        expect(words(qemu).split(`${box.work}/disk-0.img`)).toHaveLength(2);
      },
    };
    answers(box, found, checked);
    const shown = [/files of S1, made .*:$/m, /^ {2}\/etc$/m];
    await box.ends(0, "restore -n --only=/etc --only=/etc/fstab --run", "would restore", ...shown);
    expect(box.qemus.length).toBe(2);
    answers(box, { status: 66, log: "no such file: /etc\n" });
    const missing = await box.ends(66, "restore -n --only=/etc", "no such file: /etc", "snapshots ls S1");
    expect(missing.stderr).not.toContain("would restore");
    const log = "cannot replace /etc: /etc/a is immutable\n";
    answers(box, found, { status: 74, log, files: { fixed: "/etc/a" } });
    await box.ends(74, "restore -n --only=/etc", "cannot replace /etc", "chattr -i -a");
    expect(scratch(box)).toEqual([]);
    answers(box, {});
    const { stderr } = await box.ends(0, "restore --only=/etc --only=/etc/fstab", "restoring", ...shown);
    expect(stderr.indexOf("restoring")).toBeLessThan(stderr.indexOf("restored 1 path"));
    await box.ends(64, "restore -n S1", "--only");
  });

  test("an error has the guest's paths, and a hint for files that chattr protects", async () => {
    using box = await withFiles();
    answers(
      box,
      {},
      { status: 74, log: "mv: '/mnt/system1/a b'\ncannot replace /a\n", files: { fixed: "/a/it's" } },
    );
    const { stderr } = await box.ends(74, "restore --only=/a", String.raw`chattr -i -a '/a/it'\''s'`);
    expect(stderr).toContain("mv: '/a b'");
    answers(box, {}, { files: { left: "/.vm-partial-restore" } });
    await box.ends(
      0,
      "restore --only=/a",
      "cannot remove the old files in the guest",
      "/.vm-partial-restore",
    );
  });

  test("refuses a whole filesystem, --copy, and a running VM", async () => {
    using box = await withFiles();
    await box.ends(64, "restore --only=/ S1", "whole filesystem");
    await box.ends(64, "restore --only=/.. S1", "whole filesystem");
    for (const path of ["/srv/..", "/srv/../", "disk-0:/srv/.", "/srv/.//"])
      await box.ends(64, `restore --only=${path} S1`, "does not end in a name");
    await box.ends(64, "restore --only=etc S1", "not absolute");
    await box.ends(64, "restore --only=/etc --copy S1", "--copy");
    await box.running();
    await box.ends(75, "restore --only=/etc S1", "running");
  });
});

test("without space the rescue is not paused until there is: the command ends (exit 73)", async () => {
  using box = await withFiles();
  const data = { action: "stop", nospace: true, "node-name": "disk0", operation: "write", reason: "no" };
  answers(box, { hangs: true, look: (qemu) => qemu.emit("BLOCK_IO_ERROR", data) });
  await box.ends(73, "snapshots get S1 /srv to", "cannot read files of S1: no space left on device");
  expect(scratch(box)).toEqual([]);
});

/** The rescue ends when sshfs has ended. */
function endsAfterSshfs(qemu: FakeQemu): void {
  const said = join(qemu.directory, "sshfs.log");
  void until("sshfs has spoken", () => existsSync(said) && lstatSync(said).size > 0).then(() => {
    writeFileSync(join(qemu.directory, ".out/STATUS"), "0\n");
    qemu.end("guest-shutdown");
  });
}

describe.skipIf(!existsSync("/dev/fuse"))("snapshots mount", () => {
  test("the job's error, or what sshfs said, if nothing gets mounted", async () => {
    using box = await withFiles();
    box.program("fusermount3", "exit 1");
    box.program("sshfs", "echo 'unknown option' >&2; exit 1");
    mkdirSync(box.path("mnt"));
    answers(box, { status: 66, log: "no such file: /x\n" });
    const mount = "snapshots mount S1 /x mnt";
    await box.ends(66, mount, "cannot mount files of S1: no such file: /x", "vm snapshots ls S1");
    answers(box, { hangs: true, look: endsAfterSshfs });
    await box.ends(74, "snapshots mount S1 mnt", "unknown option");
    expect(scratch(box)).toEqual([]);
  });

  test.each([
    ["-o no_contain_symlinks", "subtype=vm,no_contain_symlinks,fsname=S1"],
    ["-o transform_symlinks", "subtype=vm,fsname=S1"],
  ])("sshfs leaves symlinks with .. to this program: one with %s", async (help, expected) => {
    using box = await withFiles();
    box.program("fusermount3", "exit 1");
    box.program("sshfs", `[ "$1" = -h ] && { echo '${help}'; exit; }; echo "options: $3" >&2; exit 1`);
    mkdirSync(box.path("mnt"));
    answers(box, { hangs: true, look: endsAfterSshfs });
    await box.ends(74, "snapshots mount S1 mnt", expected);
  });

  test("refuses without sshfs, and what is no empty directory", async () => {
    using box = await withFiles();
    box.program("fusermount3", "exit 1");
    const sshfs = box.program("sshfs", "exit 1");
    await box.ends(66, "snapshots mount S1 mnt", "no such directory", "mkdir");
    mkdirSync(box.path("mnt/full"), { recursive: true });
    await box.ends(73, "snapshots mount S1 mnt", "not empty");
    await box.ends(66, "snapshots mount S9 mnt/full", "S9");
    await box.ends(64, "snapshots mount S1", "a DIR");
    await box.ends(64, "snapshots mount S1 srv mnt", "not absolute");
    await box.ends(64, "snapshots mount S1 mnt --json", "no --json");
    rmSync(sshfs);
    box.without("sshfs");
    await box.ends(69, "snapshots mount S1 mnt/full", "sshfs is not installed");
  });
});

test("--key-file: the rescue gets the key; a missing one is 66, and closed LUKS says how it is opened", async () => {
  using box = await withFiles();
  writeFileSync(box.path("key"), "secret\n", { mode: 0o600 });
  const keys: string[] = [];
  answers(box, {
    result: line("a", "f 644 0 0 1 0 "),
    look: ({ directory }) => void keys.push(readFileSync(join(directory, ".in/luks.key"), "utf8")),
  });
  await box.ok("snapshots", "ls", "S1", "/", "--key-file=key");
  expect(keys).toEqual(["secret\n"]);
  await box.ends(66, "snapshots ls S1 / --key-file=none", "--key-file: no such file");
  answers(box, { status: 66, log: "no filesystem recognised\n", files: { closed: "" } });
  await box.ends(66, "snapshots ls S1 /", "--key-file=FILE");
  await box.ends(66, "snapshots ls S1", "--key-file=FILE");
  await box.ends(66, "snapshots ls S1 / --key-file=key", "key does not open all LUKS devices");
  await box.ends(64, "snapshots show S1 --key-file=key", "takes no --key-file");
  await box.ends(64, "restore S1 --key-file=key", "--key-file needs --only");
});
