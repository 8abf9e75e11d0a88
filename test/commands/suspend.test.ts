/** `suspend`, and what resumes: with a qemu whose RAM is a file of the test. test/e2e/suspend.test.ts has a real one. */
import { afterAll, describe, expect, spyOn, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  truncateSync,
  writeFileSync,
  utimesSync,
} from "node:fs";
import { join } from "node:path";
import * as ramState from "../../src/qemu/ram-state.ts";
import { lockVm } from "../../src/store/lock.ts";
import { created as createdWith } from "../fixtures/built.ts";
import { fastClock } from "../fixtures/fast-clock.ts";
import { HANG, type Behaviour, type FakeQemu } from "../fixtures/qemu/fake-qemu.ts";
import { Sandbox } from "../fixtures/sandbox.ts";
import { edit } from "./snapshots.ts";

// The fake's sockets take no descriptors.
const sent = spyOn(ramState, "sendDevicesFile").mockImplementation(async (_monitor, directory) =>
  writeFileSync(join(directory, "devices"), "devices"),
);
afterAll(() => sent.mockRestore());

const RAM_BYTES = 1 << 20;

/** Behaviour of a qemu that can be suspended. */
function withRam(box: Sandbox, behaviour: Behaviour = {}): Behaviour {
  const own = box.path("..", "ram");
  writeFileSync(own, "RAM");
  truncateSync(own, RAM_BYTES);
  const ram = (): string => {
    const resumed = join(box.work, ".vm-resumed/ram");
    return existsSync(resumed) ? resumed : own;
  };
  return {
    ...behaviour,
    answers: {
      "qom-get": ({ property }) => (property === "share" ? true : ram()),
      "query-migrate": () => ({ status: "completed" }),
      migrate_cancel: () => ({}),
      getfd: () => ({}),
      migrate: (_args, qemu) => {
        qemu.emit("MIGRATION", { status: "completed" });
        qemu.status = "postmigrate";
      },
      "migrate-incoming": (_args, qemu) => {
        qemu.status = "paused";
        qemu.emit("MIGRATION", { status: "completed" });
      },
      ...behaviour.answers,
    },
  };
}

const created = (conf = ""): Promise<Sandbox> =>
  createdWith(`MEMORY=64M\nCORES=1\nPORT=\nDISKS=(AHCI=1M)\nSHARES=()\n${conf}`);

/** Starts or resumes it. */
const run = (box: Sandbox, behaviour?: Behaviour, ...words: string[]): Promise<FakeQemu> =>
  box.running(withRam(box, behaviour), ...words);

test("status of a VM whose resuming was interrupted: what it is, and what to run", async () => {
  using box = await created();
  await run(box);
  mkdirSync(join(box.work, ".vm-suspended"), { mode: 0o700 });
  expect((await box.ok("status")).stdout).toContain(
    "being resumed from its saved state; after a 'run' that was interrupted: vm run --detach",
  );
});

/** The machine of a command line: without what its RAM and its start come from. */
const machineOf = ({ argv }: FakeQemu): string[] =>
  argv.filter((word) => !["-S", "-incoming", "defer"].includes(word));

describe("suspend", () => {
  test("prints the size that 'status' shows, of a resumed VM, too; in place as well", async () => {
    using box = await created("INPLACE=1\n");
    await run(box);
    await box.ends(0, "suspend", "4.0 KiB of RAM saved");
    // As after a restore of a snapshot with RAM.
    edit(join(box.work, ".vm.json"), (bytes) => {
      const mark = JSON.parse(bytes.toString());
      return JSON.stringify({ ...mark, owns: mark.owns.filter((name: string) => name !== ".vm-resumed") });
    });
    await run(box);
    await box.ends(0, "suspend", "1.0 MiB of RAM saved");
    await box.ends(0, "status", "1.0 MiB of RAM\n");
    await run(box);
    await box.ok("stop", "--force");
    await box.ok("destroy");
    expect(readdirSync(box.host).filter((name) => name.startsWith(".vm-"))).toEqual([]);
  });

  test("a qemu whose state follows after its report", async () => {
    using box = await created();
    let looks = 0;
    await run(box, {
      answers: {
        migrate: (_args, qemu) => {
          qemu.emit("MIGRATION", { status: "completed" });
          qemu.status = "finish-migrate";
        },
        "query-status": (_args, qemu) => {
          if (qemu.status === "finish-migrate" && ++looks === 3) qemu.status = "postmigrate";
          return { running: qemu.status === "running", status: qemu.status };
        },
      },
    });
    await box.ends(0, "suspend", "of RAM saved");
  });

  test("a guest that was paused stays paused", async () => {
    using box = await created();
    await run(box);
    await box.ok("pause");
    await box.ok("suspend");
    box.qemu = withRam(box);
    await box.ends(0, "run --detach", "it is paused, as it was then; go on: vm resume");
    expect(box.qemus.at(-1)!.status).toBe("paused");
    await box.ok("suspend");
    const qemu = await run(box);
    await box.ok("resume");
    expect(qemu.status).toBe("running");
  });

  test("73 if qemu has no space for the state of the devices, and the guest runs on", async () => {
    using box = await created();
    let failed = false;
    const qemu = await run(box, {
      answers: {
        migrate: (_args, failing) => {
          failed = true;
          failing.emit("MIGRATION", { status: "failed" });
        },
        "query-migrate": () =>
          failed
            ? { status: "failed", "error-desc": "Unable to write to file: No space left on device" }
            : { status: "none" },
      },
    });
    await box.ends(73, "suspend", "cannot suspend the VM, the guest runs on: no space left on device");
    expect(qemu.status).toBe("running");
  });

  test.each<string[][]>([[["resume"]], [["run", "--detach"]], [["run"]]])(
    "that was killed is reported by 'status', and undone by %j",
    async (words) => {
      using box = await created();
      const qemu = await run(box);
      const begun = join(box.work, ".vm-partial-suspend");
      mkdirSync(begun);
      writeFileSync(join(begun, "running"), "");
      qemu.status = "paused";
      await box.ends(0, "status", "'suspend' that was interrupted: vm resume");
      await box.ends(0, words, "an interrupted 'suspend' was undone: guest resumed");
      expect([qemu.status, existsSync(begun), box.qemus.length]).toEqual(["running", false, 1]);
    },
  );
});

describe("a suspended VM", () => {
  test("is resumed with the machine that it had; changed settings count from the next boot on", async () => {
    using box = await created();
    const first = await run(box);
    await box.ok("set", "CORES=2");
    await box.ok("suspend");
    await box.ok("set", "MEMORY=128M");
    await box.ok("nic", "add", "user");
    await box.ok("identity", "--new");
    await box.ends(74, "run --detach -m 256M", "MEMORY: the options of this command line", "run --boot");
    box.qemu = withRam(box);
    await box.ends(0, "run --detach", /in force from the next boot on: .*MEMORY/);
    const again = box.qemus.at(-1)!;
    expect(again.argv).toContain("-incoming");
    expect(machineOf(again)).toEqual(machineOf(first));
    expect((await box.json("status")).nextRun).toMatchObject({ MEMORY: "128M", CORES: "2" });
    await box.ok("suspend");
    await box.ok("run", "--detach", "--boot");
    expect(box.qemus.at(-1)!.option("-m")).toContain("128");
  });

  test("that qemu refuses: the boot is offered, not the run script; its end stays as it was", async () => {
    using box = await created();
    await run(box);
    await box.ok("suspend");
    const { lastEnd } = await box.json("status");
    box.qemu = { refuse: { status: 1, words: "backing store size 0x1000 does not match" } };
    const { stderr } = await box.ends(74, "run --detach", "backing store size", "run --boot");
    expect(stderr).not.toContain("run-vm.sh");
    expect((await box.json("status")).lastEnd).toEqual(lastEnd);
    await run(box);
  });

  test("that a qemu has loaded, and opened the disks of, before its guest ran, can be resumed again", async () => {
    using box = await created();
    await run(box);
    await box.ok("suspend");
    box.qemu = withRam(box, {
      answers: {
        "migrate-incoming": (_args, qemu) => {
          utimesSync(join(box.work, "disk-0.img"), 1, 1);
          qemu.emit("MIGRATION", { status: "failed" });
        },
      },
    });
    await box.ends(74, "run --detach", "qemu cannot load its state");
    await run(box);
    await box.ok("suspend");
    utimesSync(join(box.work, "disk-0.img"), 2, 2);
    await box.ends(74, "run --detach", "disk-0.img was changed");
  });

  test("whose start was interrupted: its end stays as it was", async () => {
    using box = await created();
    await run(box);
    await box.ok("suspend");
    const { suspended, lastEnd } = await box.json("status");
    const [saved, resumed] = [".vm-suspended", ".vm-resumed"].map((name) => join(box.work, name)) as [
      string,
      string,
    ];
    await Bun.sleep(20);
    renameSync(saved, resumed);
    edit(join(box.work, ".vm.json"), (bytes) => {
      const { run: record, ...mark } = JSON.parse(bytes.toString());
      return JSON.stringify({ ...mark, run: { ...record, ended: undefined } });
    });
    await box.ok("forward", "list");
    await box.ok("stop");
    expect((await box.json("status")).lastEnd.at).toBe(suspended.since);
    expect(Date.parse(lastEnd.at) - Date.parse(suspended.since)).toBeLessThan(1000);
  });

  test.each<[when: string, answers: Behaviour["answers"]]>([
    ["while its clock is set", { "query-chardev": (_args, qemu) => qemu.end(undefined, 1, "boom") }],
    [
      "as soon as it runs",
      {
        cont: (_args, qemu) => {
          qemu.emit("RESUME");
          qemu.end(undefined, 1, "boom");
          return HANG;
        },
      },
    ],
  ])("whose qemu exits %s: 74", async (_when, answers) => {
    using box = await created();
    await run(box);
    await box.ok("suspend");
    box.qemu = withRam(box, { answers: answers! });
    await box.ends(74, "run --detach", "the guest was resumed, but qemu exited (status 1)", "boom");
    expect((await box.json("status")).state).toBe("crashed");
  });

  test("whose state is not loaded in time: 74, again comes before what loses its RAM", async () => {
    using box = await created();
    await run(box);
    await box.ok("suspend");
    box.qemu = withRam(box, { answers: { "migrate-incoming": () => ({}) } });
    {
      using _clock = fastClock(20);
      const { stderr } = await box.ends(74, "run --detach", "not completed within 60 s");
      expect(stderr).toMatch(/try again, from the same state: vm run\n.*vm run --boot\n/);
    }
    box.qemu = withRam(box);
    await box.ends(0, "run --detach", "guest resumed");
  });

  test("stop says what is kept, backup --ram how to include it", async () => {
    using box = await created();
    await run(box);
    await box.ok("suspend");
    await box.ends(0, "stop", "its guest is stopped, and its RAM kept");
    await box.ends(75, "backup --ram", "the VM is suspended", "vm run --detach && vm backup --ram");
    using _lock = await lockVm(box.host, "test");
    using _clock = fastClock();
    await box.ends(75, "stop", "cannot stop: the VM is locked");
  });
});
