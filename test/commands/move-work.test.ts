/** `move-work`: the working files in another directory, intact at any time. */
import { expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { readMark, updateMark } from "../../src/store/mark.ts";
import { created as createdWith } from "../fixtures/built.ts";
import type { Sandbox } from "../fixtures/sandbox.ts";

const created = (...words: string[]): Promise<Sandbox> =>
  createdWith("MEMORY=64M\nCORES=1\nPORT=\nDISKS=(AHCI=1M VIRT=1M)\n", ...words);

/** A directory beside TMPDIR. */
function lasting(box: Sandbox): string {
  const path = join(box.top, "lasting");
  mkdirSync(path);
  return path;
}

const disks = (directory: string): string[] =>
  ["disk-0.img", "disk-1.img"].map((name) => readFileSync(join(directory, name)).toString("base64"));

test("to a directory, to the VM's own, and out of it again", async () => {
  using box = await created();
  const to = lasting(box);
  const before = box.work;
  const [content, env] = [disks(before), readFileSync(join(before, "guest.env"), "utf8")];
  writeFileSync(join(before, "own.img"), "mine");
  await box.ends(0, ["move-work", to], "moved the working files from");
  const there = box.work;
  expect([
    there.startsWith(`${to}/vm-`),
    existsSync(before),
    readFileSync(join(there, "own.img"), "utf8"),
  ]).toEqual([true, false, "mine"]);
  expect([disks(there), readFileSync(join(there, "guest.env"), "utf8")]).toEqual([content, env]);
  await box.ends(0, ["move-work", to], "already");
  // What is no working file of the program has no place in HOSTDIR.
  await box.ends(74, "move-work", "own.img", "mv ");
  expect(box.work).toBe(there);
  rmSync(join(there, "own.img"));
  await box.ok("move-work");
  expect([readlinkSync(box.path(".work")), disks(box.host), readdirSync(to)]).toEqual([".", content, []]);
  await box.ends(0, "move-work", "already");
  await box.ok("run", "--detach");
  await box.ends(75, ["move-work", to], "the VM is running");
  await box.ok("stop");
  await box.ok("move-work", to);
  expect([disks(box.work), existsSync(box.path("disk-0.img")), existsSync(box.path(".vm.json"))]).toEqual([
    content,
    false,
    false,
  ]);
  expect(readMark(box.work)).toMatchObject({ lastRun: "powered-off" });
  expect(readMark(box.work)!.disks!.toSorted()).toEqual(["disk-0.img", "disk-1.img"]);
  expect(readMark(box.work)).not.toHaveProperty("movingTo");
  await box.ok("run", "--detach");
});

test("to another filesystem, as copies", async () => {
  using box = await created();
  // The sandbox is in memory where it can be.
  const elsewhere = mkdtempSync("/var/tmp/vm-unit-");
  try {
    const content = disks(box.work);
    const times = statSync(join(box.work, "disk-0.img")).mtimeMs;
    await box.ok("move-work", elsewhere);
    expect([disks(box.work), box.work.startsWith(elsewhere)]).toEqual([content, true]);
    expect(statSync(join(box.work, "disk-0.img")).mtimeMs).toBeCloseTo(times, 0);
    await box.ok("move-work");
    expect([disks(box.host), readdirSync(elsewhere)]).toEqual([content, []]);
  } finally {
    rmSync(elsewhere, { recursive: true });
  }
});

test.each<[how: string, words: (box: Sandbox) => string[], status: number, printed: string]>([
  ["no such directory", () => ["move-work", "nowhere"], 66, "mkdir"],
  ["a directory in the working files", (box) => ["move-work", join(box.work, ".in")], 64, "is in them"],
])("refuses %s (%#)", async (_how, words, status, printed) => {
  using box = await created();
  const before = box.work;
  await box.ends(status, words(box), printed);
  expect(box.work).toBe(before);
});

test("refuses a disk that is a symlink: 74", async () => {
  using box = await created();
  const disk = join(box.work, "disk-1.img");
  renameSync(disk, box.path("other.img"));
  symlinkSync(box.path("other.img"), disk);
  await box.ends(74, ["move-work", lasting(box)], "disk-1.img is not a regular file");
  expect(readdirSync(join(box.top, "lasting"))).toEqual([]);
});

test("what a killed one left is removed by the next command: unfinished, or complete but not linked", async () => {
  using box = await created();
  const to = lasting(box);
  await box.ok("run", "--detach");
  await box.ok("stop");
  const before = box.work;
  const content = disks(before);
  const name = before.slice(before.lastIndexOf("/") + 1);
  const prefix = name.slice(0, -8);
  for (const [left, isComplete] of [
    [`${prefix}00000001.partial`, false],
    [`${prefix}00000002`, true],
  ] as const) {
    const path = join(to, left);
    mkdirSync(path);
    symlinkSync(box.host, join(path, ".host"));
    writeFileSync(join(path, "disk-0.img"), "half");
    if (isComplete) updateMark(path, { ...readMark(before), replaces: before });
    updateMark(before, { movingTo: to });
    await box.ok("identity", "--new");
    expect([readdirSync(to), disks(before), box.work]).toEqual([[], content, before]);
    expect(readMark(before)).not.toHaveProperty("movingTo");
  }
});

test("a restore keeps working files where a reboot leaves them", async () => {
  using box = await created();
  const to = mkdtempSync("/var/tmp/vm-unit-");
  try {
    await box.ok("backup");
    await box.ok("move-work", to);
    await box.ok("restore");
    expect(box.work.startsWith(to)).toBe(true);
    await box.ok("restore", "--use-tmpdir");
    expect(box.work.startsWith(box.tmp)).toBe(true);
  } finally {
    rmSync(to, { recursive: true });
  }
});

test("the first run says that a reboot empties the directory", async () => {
  using box = await created("--inplace");
  await box.ok("move-work", box.tmp);
  await box.ends(0, "run --detach", "a reboot empties", "to keep the VM: vm backup, or vm move-work");
  await box.ok("stop");
  const { stderr } = await box.ok("run", "--detach");
  expect(stderr).not.toContain("a reboot empties");
});
