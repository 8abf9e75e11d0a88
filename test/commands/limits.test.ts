/** Limits of a VM's qemu, by a systemd that a test plays, and by its disks' throttling. */
import { afterEach, expect, spyOn, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as confine from "../../src/vm/confine.ts";
import { created } from "../fixtures/built.ts";
import type { Sandbox } from "../fixtures/sandbox.ts";
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
  expect((await box.ok("status")).stdout).toMatch(/^limits: .*such unit$/m);
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
});

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
