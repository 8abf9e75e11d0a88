/** `suspend`, and `run` that resumes, with real qemu. */
import { expect, test } from "bun:test";
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { binary } from "./harness.ts";
import { RamVm } from "./ram-vm.ts";
import { expectError, sampled, startUntil, suite } from "./tools.ts";

const status = async ({ box }: RamVm): Promise<any> =>
  JSON.parse((await box.ok(["status", "--json"])).stdout);

/** Suspends, checks that the disk is of that time, and resumes. */
async function suspendAndResume(vm: RamVm): Promise<void> {
  await vm.box.ok(["suspend"]);
  const record = await vm.record();
  expect(record.number).toBe(vm.number);
  expect(record.count).toBeGreaterThanOrEqual(vm.count);
  vm.count = record.count;
  await vm.run();
  expect(await vm.judge()).toEqual([]);
}

suite(
  "suspend",
  () => {
    test("a guest is resumed where it was, twice, with its RAM and its disk of one point in time", async () => {
      using vm = await RamVm.make();
      const { box } = vm;
      await vm.run();
      await vm.booted();
      const { stderr } = await box.ok(["suspend"]);
      expect(stderr).toContain("suspended: ");
      expect(await box.leftovers()).toEqual([]);
      const { state, suspended, lastEnd } = await status(vm);
      expect({ state, end: lastEnd.end }).toEqual({ state: "suspended", end: "suspended" });
      expect(Date.now() - Date.parse(suspended.since)).toBeWithin(0, 300_000);
      expect((await box.ok(["status"])).stdout).toMatch(/^suspended: +since 2.* of RAM$/m);
      expect((await box.ok(["suspend"])).stderr).toContain("suspended already");
      vm.count = (await vm.record()).count;
      expect((await box.ok(["run", "--detach"])).stderr).toContain("guest resumed (suspended ");
      expect(await vm.judge()).toEqual([]);
      expect(existsSync(join(box.work, ".vm-suspended"))).toBe(false);
      expect(statSync(join(box.work, ".vm-resumed/ram")).size).toBe(64 << 20);
      // Its RAM is the file itself by now.
      await suspendAndResume(vm);
      await box.ok(["stop", "--force"]);
      expect(existsSync(join(box.work, ".vm-resumed"))).toBe(false);
    });

    test("a foreground run ends with status 0, a paused guest is suspended, too, and a backup leaves it resumable", async () => {
      using vm = await RamVm.make("SNAPSHOT_FORMAT=qcow2");
      const { box } = vm;
      const foreground = await startUntil(box, ["run", "--ssh"], "RAM");
      await vm.booted();
      await box.ok(["pause"]);
      await box.ok(["suspend"]);
      expect(await foreground.done).toMatchObject({
        status: 0,
        stderr: expect.stringContaining("suspended"),
      });
      const { stderr } = await box.ok(["backup"]);
      expect(stderr).toContain("the VM is suspended: the snapshot has its disks as of then, not its RAM");
      await box.ok(["backup"]);
      expect((await box.ok(["run", "--detach"])).stderr).toContain("it is paused, as it was then");
      expect(await status(vm)).toMatchObject({ state: "paused" });
      await box.ok(["suspend"]);
      await vm.run();
      await box.ok(["resume"]);
      expect(await vm.judge()).toEqual([]);
      expect((await status(vm)).forwards).toHaveLength(1);
    });

    test("what has changed since is refused and named, and the boot is offered", async () => {
      using vm = await RamVm.make();
      const { box } = vm;
      await vm.run();
      await vm.booted();
      await box.ok(["suspend"]);
      await box.ok(["set", "MEMORY=128M"]);
      await box.ok(["nic", "add", "user"]);
      await box.ok(["identity", "--new"]);
      const { stderr } = await box.ok(["run", "--detach"]);
      expect(stderr).toMatch(/in force from the next boot on: .*MEMORY/);
      await box.ok(["set", "MEMORY=64M"]);
      expect(await vm.judge()).toEqual([]);

      await box.ok(["suspend"]);
      for (const words of [
        ["job", "shrink"],
        ["disk", "add", "VIRT=1M"],
        ["restore", "S0"],
      ])
        expect((await box.vm(words)).stderr).toMatch(/the VM is suspended|no such snapshot/);
      expectError(await box.vm(["exec", "true"]), 66, /is suspended/);
      expect((await box.ok(["stop"])).stderr).toContain("suspended: its guest is stopped");
      await vm.diskIo("write -q -P 7 1M 512");
      expectError(await box.vm(["run", "--detach"]), 74, /disk-0\.img was changed/);
      const { number } = vm;
      expect((await box.ok(["run", "--detach", "--boot"])).stderr).toContain("discarded");
      await vm.booted();
      expect(vm.number).not.toBe(number);

      await box.ok(["suspend"]);
      expect((await box.ok(["stop", "--force"])).stderr).toContain("discarded the RAM");
      expect(await status(vm)).toMatchObject({ state: "stopped", lastEnd: { end: "stopped" } });
    });

    test.each(
      sampled(
        [
          "DISKS=(AHCI=16M)\nNETWORKS=(user user)",
          "DISKS=(VIRT=16M)\nPORT=5999\nSPICE_SOCKET=1",
          "DISKS=(SCSI=16M)\nDISPLAY_PROTOCOL=vnc\nPORT=5998\nNETWORKS=(passt)",
          "DISKS=(USB=16M)\nNETWORKS=(net=lab)",
          "TPM=2.0\nMEMORY=64M,slots=2,maxmem=1G\nNETWORKS=(user,link=down)",
        ] as const,
        0,
        1,
      ),
    )("with %j", async (settings) => {
      using vm = await RamVm.make(settings);
      await vm.run();
      await vm.booted();
      await suspendAndResume(vm);
    });

    test("disks on NVME cannot be saved (69), and the guest is not paused", async () => {
      using vm = await RamVm.make("DISKS=(NVME=16M)");
      await vm.run();
      await vm.booted();
      expectError(await vm.box.vm(["suspend"]), 69, /qemu cannot save its NVMe disks\n.*another bus/);
      expect(await vm.judge()).toEqual([]);
    });

    // rename(2) divides both commands: before the first, between two, after the last.
    test.each(sampled([1, 2, 3], 0, 1))(
      "kill -9 at rename %d of suspend and of run: the guest runs on, or is suspended, and is resumed once",
      async (when) => {
        using vm = await RamVm.make();
        const { box } = vm;
        const killed = (...words: string[]) =>
          box.vm(words, {
            program: [
              "strace",
              "-qq",
              "-o",
              "/dev/null",
              "-e",
              `inject=rename:signal=KILL:when=${when}`,
              binary,
            ],
          });
        await vm.run();
        await vm.booted();
        await killed("suspend");
        await box.vm(["suspend"]);
        expect(await status(vm)).toMatchObject({ state: "suspended" });
        expect((await vm.record()).number).toBe(vm.number);
        await killed("run", "--detach");
        await box.vm(["run", "--detach"]);
        expect(await vm.judge()).toEqual([]);
        await suspendAndResume(vm);
      },
    );

    test("without space the guest runs on", async () => {
      using vm = await RamVm.make();
      const { box } = vm;
      await vm.run();
      await vm.booted();
      const full = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=sendfile:error=ENOSPC", binary];
      expectError(await box.vm(["suspend"], { program: full }), 73, /the guest runs on/);
      expect(await vm.judge()).toEqual([]);
      await suspendAndResume(vm);
    });

    test("Ctrl-C at any time: the guest runs on, or the VM is suspended", async () => {
      using vm = await RamVm.make();
      const { box } = vm;
      await vm.run();
      await vm.booted();
      for (const ms of sampled([100, 140, 180, 220, 260], 0, 2)) {
        const interrupted = box.start(["suspend"]);
        await Bun.sleep(ms);
        interrupted.kill("SIGINT");
        await interrupted.done;
        const { state } = await status(vm);
        if (state === "suspended") await vm.run();
        else expect(state).toBe("running");
        expect(await vm.judge()).toEqual([]);
      }
    });
  },
  ["strace"],
);
