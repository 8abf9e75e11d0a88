/** A VM of which a part of the disk is only in the repository: what each command does with it. */
import { describe, expect, spyOn, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Sandbox } from "../fixtures/sandbox.ts";
import { addRepository, qemuImg, written } from "./snapshots.ts";

const ID = "a".repeat(64);
const PART = /of disk-0\.img a part is only in the repository \(S0\)/;

/** As an interrupted `restore --from-remote --run` leaves it. */
async function arriving(): Promise<Sandbox> {
  const box = await written();
  await box.ok("backup", "S0");
  record(box);
  point(box);
  return box;
}
const recorded = (box: Sandbox): object => JSON.parse(readFileSync(join(box.work, ".vm.json"), "utf8"));
/** Records that its disks are being copied. */
const record = (box: Sandbox): void =>
  writeFileSync(
    join(box.work, ".vm.json"),
    JSON.stringify({ ...recorded(box), arriving: { name: "S0", id: ID } }),
  );

/** Its disk names an image in the repository. */
function point(box: Sandbox): void {
  const backing = ".vm-repository/backups/S0/disk-0.qcow2";
  const disk = join(box.work, "disk-0.img");
  qemuImg("rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing, disk);
}

describe("while a part of a disk is only in the repository", () => {
  test.each([
    [["backup"]],
    [["clone", "../copy"]],
    [["export", "-o", "file"]],
    [["disk", "resize", "0", "2M"]],
    [["disk", "add", "1M"]],
    [["rename", "other"]],
    [["job", "list-disks"]],
    [["restore", "S0", "--only=/etc"]],
  ])("%j is refused with the way to complete it (exit 75)", async (words) => {
    using box = await arriving();
    const { status, stderr } = await box.vm(...words);
    expect(stderr).toMatch(PART);
    expect(stderr).toContain("run --detach");
    expect(status).toBe(75);
  });

  test("status says so, list and set work, and destroy removes it", async () => {
    using box = await arriving();
    expect((await box.ok("status")).stdout).toMatch(
      /incomplete: +disk-0\.img: a part is only in S0 in the repository, \d+ % done; to continue: .*run --detach/,
    );
    expect(await box.json("status", "--json")).toMatchObject({
      arriving: { snapshot: "S0", id: ID, disks: ["disk-0.img"], mounted: false, repository: "gone" },
      // Looking there would wait for a repository that does not answer.
      reaches: [],
    });
    await box.ok("list");
    await box.ok("set", "CORES=2");
    await box.ok("nic", "add");
    await box.ok("snapshots");
    await box.ok("destroy", "--force");
    expect(existsSync(box.path(".work"))).toBe(false);
  });

  test("status says how much is here, by the disk's tables", async () => {
    using box = await arriving();
    expect(await box.json("status", "--json")).toMatchObject({ arriving: { percent: expect.any(Number) } });
    expect((await box.ok("status")).stdout).toMatch(/in the repository, \d+ % done; to continue: /);
  });

  test("destroy ends the process that reads the repository, and waits for it", async () => {
    using box = await arriving();
    const directory = join(box.top, "served");
    mkdirSync(directory);
    const ready = join(box.top, "ready");
    const script = `trap 'sleep 0.3; : >"$1/ended"; exit 0' TERM; : >${ready}; while :; do sleep 0.05; done`;
    const keeper = Bun.spawn(["bash", "-c", script, "__keep", directory, box.host]);
    while (!existsSync(ready)) await Bun.sleep(10);
    await box.ok("destroy");
    expect(existsSync(join(directory, "ended"))).toBe(true);
    expect(await keeper.exited).toBe(0);
  });

  test("restore replaces it", async () => {
    using box = await arriving();
    await box.ok("restore", "S0");
    expect(recorded(box)).not.toHaveProperty("arriving");
    await box.ok("backup", "S1");
  });

  test("run says what is missing if the repository no longer has the snapshot (exit 66)", async () => {
    using box = await arriving();
    addRepository(box);
    const { status, stderr } = await box.vm("run", "--detach");
    expect(stderr).toContain("the repository does not have S0 (aaaaaaaa) any more");
    expect(status).toBe(66);
    expect(recorded(box)).toHaveProperty("arriving");
  });
});

/** A running VM whose disk is complete, which is not recorded. */
async function running(): Promise<Sandbox> {
  const box = await written();
  await box.ok("backup", "S0");
  await box.ok("run", "--detach");
  record(box);
  return box;
}

test.each([[["suspend"]], [["backup"]], [["disk", "add", "1M"]]])(
  "%j while the VM runs, and no process reads the repository: refused with the way to continue",
  async (words) => {
    using box = await running();
    point(box);
    const { status, stderr } = await box.vm(...words);
    expect(stderr).toMatch(PART);
    expect(stderr).toMatch(/copied again: \S+ resume; follow them: \S+ status/);
    expect(status).toBe(75);
  },
);

test("status names the full directory when copying has stopped for lack of space", async () => {
  using box = await written();
  await box.ok("backup", "S0");
  const job = { id: "arrive-disk0", type: "stream", "current-progress": 40, "total-progress": 100 };
  let status = "running";
  await box.running({ answers: { "query-jobs": () => [{ ...job, status }] } });
  record(box);
  point(box);
  const { hasSpaceToResume } = await import("../../src/vm/guest-errors.ts");
  using space = spyOn(await import("../../src/vm/guest-errors.ts"), "hasSpaceToResume");
  space.mockImplementation((directory) => directory !== box.work && hasSpaceToResume(directory));
  expect(await box.json("status", "--json")).toMatchObject({ arriving: { percent: 40 } });
  expect((await box.ok("status")).stdout).not.toContain("no space left");
  status = "paused";
  expect(await box.json("status", "--json")).toMatchObject({ arriving: { percent: 40, full: box.work } });
  expect((await box.ok("status")).stdout).toMatch(
    /incomplete: .*, 40 % done; copying stopped, no space left in \/.*: it continues as soon as 64 MiB are free in \//,
  );
});

test.each([["--dry-run"], ["--escaped"], ["--key-file=k"]])(
  "restore --from-remote %s without --only: the hint lists the repository (exit 64)",
  async (option) => {
    using box = await written();
    const { status, stderr } = await box.vm("restore", "S0", "--from-remote", option);
    expect(stderr).toMatch(/needs --only\n.*list the snapshots: \S+ snapshots --remote$/m);
    expect(status).toBe(64);
    const wrong = await box.vm("restore", "S0", "--from-remote", "--only=etc", "-n");
    expect(wrong.stderr).toContain("snapshots ls --remote S0");
    const whole = await box.vm("restore", "S0", "--from-remote", "--only=/", "-n");
    expect(whole.stderr).toMatch(/restore all: \S+ restore S0 --from-remote$/m);
  },
);

test("run refuses a disk on a bus that does not wait for the repository (exit 78)", async () => {
  using box = await arriving();
  const { canWait, refuseHasty } = await import("../../src/vm/arriving.ts");
  const image = { bus: "NVME", path: "disk-0.img", format: undefined } as const;
  const work = { dir: box.work } as Parameters<typeof refuseHasty>[1];
  expect(() => refuseHasty([image], work)).toThrow("a part of the disk disk-0.img is only in the repository");
  expect(() => refuseHasty([{ ...image, bus: "VIRT" }], work)).not.toThrow();
  expect(["AHCI", "SCSI", "USB"].map((bus) => canWait(bus as "USB"))).toEqual([true, true, false]);
});

describe("once the disk's header says that it is complete", () => {
  test("any command that changes the VM records that, after qemu has flushed it", async () => {
    using box = await running();
    expect(await box.json("status", "--json")).not.toHaveProperty("arriving");
    await box.ok("set", "CORES=2");
    expect(recorded(box)).not.toHaveProperty("arriving");
    const sent = box.qemus.at(-1)!.requests.find(({ execute }) => execute === "blockdev-reopen");
    expect(sent?.arguments.options).toMatchObject([{ "node-name": "disk0", backing: null }]);
    await box.ok("stop", "--force");
    await box.ok("backup", "S1");
  });

  test("a qemu that was killed may not have flushed it: it stays incomplete", async () => {
    using box = await running();
    await box.ok("stop", "--force");
    // `stop` has recorded it: as if qemu had been killed before.
    record(box);
    expect((await box.vm("backup", "S1")).status).toBe(75);
    expect(recorded(box)).toHaveProperty("arriving");
    expect((await box.ok("status")).stdout).toMatch(/incomplete: .*to continue: .*run --detach/);
  });
});
