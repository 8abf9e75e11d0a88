/** Limits of a VM's qemu, by a systemd that a test plays, and by its disks' throttling. */
import { afterEach, describe, expect, spyOn, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Refusal } from "../fixtures/qemu/block-layer.ts";
import * as confine from "../../src/vm/confine.ts";
import { created } from "../fixtures/built.ts";
import { Sandbox } from "../fixtures/sandbox.ts";
import { testWith } from "../fixtures/needs.ts";

const CONF = "MEMORY=64M\nCORES=1\nDISKS=(AHCI=1M)\nPORT=\n";

let manager: { mockRestore(): void } | undefined;
afterEach(() => manager?.mockRestore());

/** A busctl that records its words. */
function withManager(box: Sandbox, script = "exit 0"): () => string[] {
  manager = spyOn(confine, "findManager").mockReturnValue({ bus: "--user" });
  const record = join(box.top, "busctl");
  box.program("busctl", `printf '%s\\n' "$@" >>'${record}'\n${script}`);
  return () => readFileSync(record, "utf8").trim().split("\n");
}

testWith("qemu-img")("a refusal of systemd is a warning, and told by status", async () => {
  using box = await created(`${CONF}CPU_QUOTA=150%\nMEMORY_MAX=1G\nIO_WEIGHT=50\nSLICE=vms.slice\n`);
  const words = withManager(box, "echo 'Call failed: \u001b[31mno\u001b[0m such unit' >&2; exit 1");
  const { stderr } = await box.ok("run", "--detach");
  expect(stderr).toMatch(/warning: the VM runs without its limits .*no.* such unit/);
  expect(stderr).not.toContain("\u001b");
  const pid = (await box.json("status")).pid as number;
  const all = words().join(" ");
  expect(all).toStartWith("--user --timeout=10 call org.freedesktop.systemd1");
  expect(all).toContain(`StartTransientUnit ssa(sv)a(sa(sv)) vm-G-${pid}.scope fail 7`);
  expect(all).toContain(`PIDs au 1 ${pid} CollectMode s inactive-or-failed Slice s vms.slice`);
  expect(all).toEndWith("CPUQuotaPerSecUSec t 1500000 MemoryMax t 1073741824 IOWeight t 50 0");
  const { limits } = await box.json("status");
  expect(limits).toMatchObject({
    group: null,
    cpuPercent: null,
    problem: expect.stringContaining("such unit"),
  });
  expect((await box.ok("status")).stdout).toMatch(
    /^limits: .*not in force: CPU_QUOTA, MEMORY_MAX, IO_WEIGHT, SLICE \(.*such unit\)$/m,
  );
});

testWith("qemu-img")("without limits nothing is asked, and nothing is told", async () => {
  using box = await created(CONF);
  withManager(box);
  await box.running();
  expect(manager).not.toHaveBeenCalled();
  expect((await box.json("status")).limits).toBeUndefined();
  // What the next run changes.
  await box.ok("set", "CPU_QUOTA=50%");
  expect((await box.json("status")).nextRun).toEqual({ CPU_QUOTA: "50%" });
});

testWith("qemu-img")("MEMORY_MAX below the RAM is refused at set and at run", async () => {
  using box = await created(CONF);
  expect(await box.ends(64, ["set", "MEMORY_MAX=32M"])).toMatchObject({
    stderr: expect.stringMatching(
      /MEMORY_MAX, 32 MiB, is less than the guest's RAM, 64 MiB[\s\S]*MEMORY_MAX=320M/,
    ),
  });
  expect((await box.ok("set", "MEMORY_MAX=100M")).stderr).toContain("leaves little beside the guest's RAM");
  await box.ends(64, ["set", "MEMORY=128M"]);
  expect(await box.ends(64, ["-m", "128M", "run", "--detach"])).toMatchObject({
    stderr: expect.stringContaining("cannot run: MEMORY_MAX"),
  });
  const settings = join(box.work, "guest.env");
  writeFileSync(settings, `${readFileSync(settings, "utf8")}MEMORY_MAX=32M\n`);
  await box.ends(78, ["run", "--detach"], "cannot run: MEMORY_MAX");
});

test.each(["SLICE=a-.slice", "SLICE=a--b.slice", "DISK_LIMITS=0:iops=1 0:iops=2"])(
  "set %p is refused (64)",
  async (assignment) => {
    using box = new Sandbox();
    const words = assignment.startsWith("DISK")
      ? ["DISK_LIMITS=0:iops=1", "DISK_LIMITS=0:iops=2"]
      : [assignment];
    await box.ends(64, ["set", ...words]);
  },
);

test("status compares with what the kernel has", () => {
  const settings = { CPU_QUOTA: 150, MEMORY_MAX: undefined, IO_WEIGHT: undefined, SLICE: "" };
  const places = { proc: "/nowhere", groups: "/nowhere" };
  expect(
    confine.readLimitStatus({ ...settings, CPU_QUOTA: undefined }, undefined, 1, places),
  ).toBeUndefined();
  expect(confine.readLimitStatus(settings, { group: "/x" }, 1, places)).toEqual({
    group: null,
    cpuPercent: null,
    memoryBytes: null,
    ioWeight: null,
    problem: "not in force: CPU_QUOTA",
  });
});

/** Every bus, with the name of its disk's backend in qemu. */
const BUSES = {
  AHCI: "disk0-dev",
  VIRT: "/machine/peripheral/disk0-dev/virtio-backend",
  NVME: "disk0-dev",
  SCSI: "disk0-dev",
  USB: "disk0-dev",
};

describe("limits of disks", () => {
  testWith("qemu-img").each(Object.entries(BUSES))(
    "%s: set while the guest runs, and again at the next start",
    async (bus, backend) => {
      using box = await created(CONF.replace("AHCI", bus));
      const qemu = await box.running();
      expect(qemu.argv).not.toContain("-S");
      const { stderr } = await box.ok("disk", "set", "0", "--iops=500", "--bps=20M");
      expect(stderr).toContain("disk 0: 500 IOPS, 20 MiB/s");
      expect([...qemu.blocks.throttles]).toEqual([[backend, { iops: 500, bps: 20 << 20 }]]);
      expect((await box.ok("status")).stdout).toMatch(/disk: .*at most 500 IOPS, 20 MiB\/s/);
      expect((await box.json("status")).nextRun).toBeUndefined();
      expect(await box.json("disk", "list")).toMatchObject([{ iops: 500, bytesPerSecond: 20 << 20 }]);
      expect((await box.ok("disk", "list")).stdout).toMatch(/LIMITS +IMAGE[\s\S]*500 IOPS, 20 MiB\/s/);
      await box.ok("stop", "--force");
      const again = await box.running();
      expect([...again.blocks.throttles]).toEqual([[backend, { iops: 500, bps: 20 << 20 }]]);
      // Before the guest runs.
      const order = again.requests.map(({ execute }) => execute).filter((name) => /throttle|cont/.test(name));
      expect(order).toEqual(["block_set_io_throttle", "cont"]);
      await box.ok("disk", "set", "disk-0", "--iops=0");
      expect(again.blocks.throttles.get(backend)).toEqual({ iops: 0, bps: 20 << 20 });
      expect((await box.ok("disk", "set", "0", "--bps=20")).stderr).toContain(
        "warning: --bps=20 is 20 bytes per second; for mebibytes: --bps=20M",
      );
      await box.ok("disk", "set", "0", "--bps=");
      expect((await box.json("disk", "list"))[0]).not.toHaveProperty("bytesPerSecond");
      expect((await box.json("config", "DISK_LIMITS")).DISK_LIMITS.value).toEqual([]);
    },
  );

  testWith("qemu-img")("the limit of a removed disk is not that of the next one of its number", async () => {
    using box = await created(CONF.replace("AHCI=1M", "VIRT=1M"));
    await box.ok("disk", "add", "VIRT=1M");
    await box.ok("disk", "set", "1", "--iops=7");
    await box.ok("disk", "remove", "1", "--delete");
    await box.ok("disk", "add", "VIRT=1M");
    expect(await box.json("disk", "list")).toMatchObject([{ number: 0 }, { number: 1 }]);
    expect((await box.ok("disk", "list")).stdout).not.toContain("IOPS");
  });

  test.each([
    [["set", "0"], /--iops or --bps is missing/],
    [["set", "--iops=1"], /NAME is missing/],
    [["set", "0", "--iops=1K"], /--iops: '1K' is not allowed/],
    [["set", "0", "--bps=-1"], /--bps: '-1' is not allowed/],
    [["list", "--iops=1"], /disk list takes no --iops/],
  ])("disk %p is refused (64)", async (words, message) => {
    using box = new Sandbox();
    expect(await box.vm("disk", ...words)).toMatchObject({
      status: 64,
      stderr: expect.stringMatching(message),
    });
  });

  testWith("qemu-img")("an unknown disk (66), and what qemu refuses (74)", async () => {
    using box = await created(CONF);
    await box.ends(66, ["disk", "set", "3", "--iops=1"]);
    const qemu = await box.running();
    qemu.blocks.answers.block_set_io_throttle = () => {
      throw new Refusal("no");
    };
    expect(await box.ends(74, ["disk", "set", "0", "--iops=1"])).toMatchObject({
      stderr: expect.stringContaining("cannot limit the disk: no"),
    });
    expect((await box.ok("disk", "list")).stdout).not.toContain("IOPS");
  });
});
