/** Snapshots with the RAM of a running guest, as far as no qemu needs to resume one: test/e2e/ram.test.ts does. */
import { describe, expect, spyOn, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { writeSums } from "../../src/snapshot/make/describe.ts";
import * as memory from "../../src/process/memory-file.ts";
import { makePipe } from "../../src/process/libc.ts";
import type { Sandbox } from "../fixtures/sandbox.ts";
import { addRam, DEVICES, RAM, RAM_BYTES, withRam } from "./saved-ram.ts";
import { addRepository, edit, seen, writeDisk, written } from "./snapshots.ts";

const suspended = (box: Sandbox, name: string): string => join(box.work, ".vm-suspended", name);

const description = (content: string) => (box: Sandbox) =>
  writeFileSync(suspended(box, "state.json"), content);

test("a VM with the RAM of a snapshot reaches what its saved machine does, whatever guest.env says", async () => {
  using box = await withRam();
  await box.ok("restore");
  expect((await box.json("status")).reaches).toEqual([]);
  edit(box.path("backups/S0/manifest.json"), (bytes) => {
    const manifest = JSON.parse(bytes.toString());
    manifest.machine.cd.path = "/etc/shadow";
    manifest.machine.run.settings = { SHARES: ["x:rw:/srv"] };
    manifest.machine.run.typed = {
      settings: { NETWORKS: ["bridge=br0"] },
      additions: { FORWARDS: ["smb=/home"] },
    };
    return JSON.stringify(manifest);
  });
  rmSync(box.path("backups/S0/SHA256SUMS"));
  await writeSums(box.path("backups/S0"));
  await box.ok("restore");
  expect((await box.json("status")).reaches).toEqual([
    { kind: "network", what: "bridge=br0" },
    { kind: "share", what: "/home", writable: true },
    { kind: "share", what: "/srv", writable: true },
    { kind: "cd", what: "/etc/shadow" },
  ]);
});

describe("a saved state that cannot be used", () => {
  const DAMAGES: [what: string, damage: (box: Sandbox) => unknown, printed: string][] = [
    ["with a damaged description", description("{"), "state.json is damaged"],
    ["of a newer version", description('{"format": 2}'), "newer version"],
    [
      "with a named pipe as its description",
      (box) => {
        unlinkSync(suspended(box, "state.json"));
        makePipe(suspended(box, "state.json"));
      },
      "state.json is damaged",
    ],
    ["without RAM", (box) => unlinkSync(suspended(box, "ram")), "ram is not a regular file"],
    [
      "that is a file",
      (box) => {
        rmSync(suspended(box, ""), { recursive: true });
        writeFileSync(suspended(box, ""), "");
      },
      "not a directory of this user",
    ],
  ];
  test.each(DAMAGES)("%s: is reported, and nothing but 'run' needs it", async (_what, damage, printed) => {
    using box = await withRam();
    await box.ok("restore");
    damage(box);
    await box.ends(74, "run --detach", printed, "vm run --boot");
    await box.ends(74, "suspend", printed, "vm run --boot");
    const status = await box.jsonEnds(74, "status");
    expect(status).toMatchObject({ state: "suspended", error: expect.stringContaining(printed) });
    expect(status.hint).toContain("run --boot");
    await box.ok("verify");
    await box.ok("snapshots");
    await box.ok("backup");
    await box.ends(0, "run --detach --boot", "discarded");
    expect(box.qemus.at(-1)!.argv).not.toContain("-incoming");
  });

  test.each<string[][]>([[["stop", "--force"]], [["restore", "--no-ram"]], [["destroy"]]])(
    "is discarded by %j",
    async (words) => {
      using box = await withRam();
      await box.ok("restore");
      edit(box.path(".work/.vm.json"), (bytes) => {
        const mark = JSON.parse(bytes.toString());
        return JSON.stringify({ ...mark, created: "2020-01-01T00:00:00.000Z" });
      });
      await box.ends(75, "restore", "suspended");
      const path = suspended(box, "");
      description("{")(box);
      await box.ok(...words);
      expect(existsSync(path)).toBe(false);
    },
  );
});

describe("backup --ram", () => {
  test("of a VM that is off: 75, no snapshot", async () => {
    using box = await written();
    await box.ends(75, "backup --ram", "the VM is off");
    expect(existsSync(box.path("backups/S0"))).toBe(false);
  });
});

describe("a snapshot with RAM", () => {
  test("snapshots, show: says so", async () => {
    using box = await withRam();
    await box.ends(0, "snapshots", "LAST, RAM");
    await box.ends(0, "snapshots show S0", "RAM:           4.0 MiB");
    expect(await box.json("snapshots")).toMatchObject([{ name: "S0", ramBytes: RAM_BYTES, problem: null }]);
    await box.ok("backup");
    expect((await box.json("snapshots"))[1]).toMatchObject({ parent: "S0", ramBytes: null });
  });

  test.each([
    ["qcow2", "SNAPSHOT_FORMAT=qcow2\n"],
    ["gz", "SNAPSHOT_FORMAT=gz\n"],
  ])("%s: is pushed, listed with its mark, and fetched", async (_format, conf) => {
    using box = await withRam(conf);
    addRepository(box);
    await box.ok("snapshots", "push", "S0");
    await box.ends(0, "snapshots --remote", "RAM");
    expect(await box.json("snapshots", "--remote")).toMatchObject([{ name: "S0", ramBytes: RAM_BYTES }]);
    await box.ok("destroy");
    rmSync(box.path("backups"), { recursive: true });
    await box.ok("restore", "--from-remote");
    expect(readFileSync(suspended(box, "ram")).subarray(0, RAM.length)).toEqual(RAM);
  });

  test("fetched RAM that is not as long as its manifest says: 74, nothing is left", async () => {
    using box = await withRam();
    addRepository(box);
    await box.ok("snapshots", "push", "S0");
    const repo = join(box.top, "repo");
    const tar = join(
      repo,
      readdirSync(repo).find((name) => name.endsWith(".tar"))!,
    );
    Bun.spawnSync(["sh", "-c", `tar -xf ${tar} && truncate -s 8M S0/state.ram && tar -cf ${tar} S0`], {
      cwd: box.bin,
    });
    await box.ok("destroy");
    rmSync(box.path("backups"), { recursive: true });
    await box.ends(74, "restore --from-remote", "state.ram");
    expect(existsSync(box.path("backups"))).toBe(false);
  });

  test("verify: its content is only compared with its checksum", async () => {
    using box = await withRam();
    await box.ends(0, "verify --deep", "good");
    edit(box.path("backups/S0/state.ram"), (bytes) => bytes.fill(7, 1 << 20, (1 << 20) + 1));
    await box.ends(74, "verify", "state.ram: its checksum is wrong");
  });

  test.each([
    ["qcow2", "SNAPSHOT_FORMAT=qcow2\n"],
    ["gz", "SNAPSHOT_FORMAT=gz\n"],
  ])("restore, %s: has the state ready, and leaves the snapshot as it is", async (_format, conf) => {
    using box = await withRam(conf);
    // The fixture's copy has none.
    const stored = box.path("backups/S0/state.ram");
    if (existsSync(stored)) Bun.spawnSync(["fallocate", "--dig-holes", stored]);
    await box.ok("restore");
    const ram = suspended(box, "ram");
    expect(statSync(ram)).toMatchObject({ size: RAM_BYTES, mode: 0o100600 });
    expect(statSync(ram).blocks * 512).toBeLessThan(1 << 20);
    expect(readFileSync(ram).subarray(0, RAM.length)).toEqual(RAM);
    expect(readFileSync(suspended(box, "devices"))).toEqual(DEVICES);
    expect(seen(box)).toEqual([1]);
    writeFileSync(ram, "the guest writes");
    await box.ends(0, "verify", "good");
  });

  test("restore --no-ram: only the disks, even if the RAM is damaged", async () => {
    using box = await withRam();
    await box.ok("restore", "--no-ram");
    expect(existsSync(suspended(box, "ram"))).toBe(false);
    chmodSync(box.path("backups/S0/state.ram"), 0o600);
    truncateSync(box.path("backups/S0/state.ram"), 1 << 20);
    await box.ends(74, "restore", "--no-ram");
    await box.ok("restore", "--no-ram");
    expect(seen(box)).toEqual([1]);
  });

  test("without space for the RAM: 73, and the working files are as before", async () => {
    using box = await withRam();
    const before = box.work;
    const error = Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
    using _full = spyOn(memory, "copySparse").mockRejectedValue(error);
    await box.ends(73, "restore", "cannot copy", "no space");
    expect(box.work).toBe(before);
  });

  test.each([
    ["resumes it", "7.2.22", "resumes (--boot-wait matched)"],
    [
      "of another qemu boots it, and says why",
      "7.0.0",
      "its RAM was not resumed: it was saved by qemu 7.0.0",
    ],
  ])("verify --boot %s", async (_what, qemu, printed) => {
    using box = await written("SNAPSHOT_FORMAT=qcow2\n");
    await box.ok("backup");
    await addRam(box, "S0", qemu);
    box.qemu = { console: "ready\n" };
    await box.ends(0, "verify --boot --boot-wait=ready", printed);
    expect(box.qemus.at(-1)!.argv.includes("-incoming")).toBe(qemu === "7.2.22");
  });

  test("restore of one of another qemu: its disks only, with the reason, and the next run boots", async () => {
    using box = await written("SNAPSHOT_FORMAT=qcow2\n");
    await box.ok("backup");
    await addRam(box, "S0", "7.0.0");
    const { stderr } = await box.ok("restore", "--run");
    expect(stderr).toContain("the RAM of S0 is left out, as it was saved by qemu 7.0.0, and this is 7.2.22");
    expect(stderr).toContain("the guest boots from its disks");
    expect(box.qemus.at(-1)!.argv).not.toContain("-incoming");
    expect(existsSync(suspended(box, ""))).toBe(false);
  });

  test("restore --run: resumes the guest in the background", async () => {
    using box = await withRam();
    await box.ok("restore", "--run");
    const qemu = box.qemus.at(-1)!;
    expect(qemu.argv).toContain("-incoming");
    expect(qemu.status).toBe("running");
    expect(existsSync(suspended(box, "ram"))).toBe(false);
    await box.ends(75, "restore", "running");
  });

  test("run: the RAM of a resumed guest has all its space; without it 73, and the state is as before", async () => {
    using box = await withRam();
    await box.ok("restore");
    truncateSync(suspended(box, "ram"), 2 ** 50);
    const refused = await box.ends(73, "run --detach", "no space for its RAM", "1024 TiB needed", "--boot");
    expect(refused.stderr).toMatch(/ \d.* free/);
    truncateSync(suspended(box, "ram"), RAM_BYTES);
    await box.ends(0, "status", "suspended");
    await box.ok("run", "--detach");
    const { size, blocks } = statSync(join(box.work, ".vm-resumed/ram"));
    expect([size, blocks * 512 >= size]).toEqual([RAM_BYTES, true]);
  });

  test("a restored state that was not resumed is replaced by another restore", async () => {
    using box = await withRam();
    await box.ok("restore");
    await box.ends(0, "status", "suspended");
    await box.ok("restore", "--no-ram");
    expect(existsSync(suspended(box, "ram"))).toBe(false);
  });

  test("a clone of a suspended VM has its disks only, and says so", async () => {
    using box = await withRam();
    await box.ok("restore");
    const { stderr } = await box.ok("clone", "--keep-guest", "../web");
    expect(stderr).toContain("the VM is suspended: the clone is crash-consistent");
    expect(await box.json("-d", join(box.top, "web"), "status")).toMatchObject({
      state: "created",
      lastEnd: null,
    });
  });

  test("damaged RAM: 74, and the working files are as before", async () => {
    using box = await withRam();
    edit(box.path("backups/S0/state.ram"), (bytes) => bytes.fill(7, 1 << 20, (1 << 20) + 1));
    const before = box.work;
    await box.ends(74, "restore", "state.ram: its checksum is wrong");
    expect(box.work).toBe(before);
  });

  test("snapshots rm --merge: its child keeps its own RAM, and needs none of its parent", async () => {
    using box = await withRam();
    writeDisk(box, 1, 2);
    await box.ok("backup");
    await addRam(box, "S1");
    writeDisk(box, 2, 3);
    await box.ok("backup");
    const { ino } = statSync(box.path("backups/S1/state.ram"));
    await box.ok("snapshots", "rm", "S0", "--merge");
    expect(statSync(box.path("backups/S1/state.ram")).ino).toBe(ino);
    await box.ends(0, "verify --all", "good");
    await box.ok("snapshots", "rm", "S1", "--merge");
    expect(existsSync(box.path("backups/S2/state.ram"))).toBe(false);
    await box.ok("restore", "S2");
    expect(seen(box)).toEqual([1, 2, 3]);
    expect(existsSync(suspended(box, "ram"))).toBe(false);
  });

  test("snapshots diff compares its disks", async () => {
    using box = await withRam();
    writeDisk(box, 1, 2);
    await box.ok("backup");
    expect(await box.json("snapshots", "diff", "S0", "S1")).toMatchObject({
      disks: [{ name: "disk-0.img", changedBytes: 65536 }],
    });
  });

  test.each<[what: string, spoil: (box: Sandbox) => unknown, printed: string]>([
    ["without its RAM", (box) => unlinkSync(box.path("backups/S0/state.ram")), "state.ram is missing"],
    [
      "without the record of its machine",
      (box) =>
        edit(box.path("backups/S0/manifest.json"), (bytes) => {
          const { machine: _machine, ...rest } = JSON.parse(bytes.toString());
          return JSON.stringify(rest);
        }),
      "manifest",
    ],
  ])("%s is damaged", async (_what, spoil, printed) => {
    using box = await withRam();
    spoil(box);
    await box.ends(74, "restore", printed);
    await box.ends(74, "verify", printed);
  });
});
