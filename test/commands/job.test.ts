import { afterAll, beforeAll, describe, expect, spyOn, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import * as descriptors from "../../src/qmp/send-descriptor.ts";
import { fastClock } from "../fixtures/fast-clock.ts";
import type { Behaviour, FakeQemu } from "../fixtures/qemu/fake-qemu.ts";
import { lockVm } from "../../src/store/lock.ts";
import { INTERRUPTED_JOB, type Mark } from "../../src/store/mark-types.ts";
import { readMark, updateMark } from "../../src/store/mark.ts";
import { Sandbox, until } from "../fixtures/sandbox.ts";

/** As `status` has it. */
const INTERRUPTED = `${INTERRUPTED_JOB}; until the next run its disks are crash-consistent`;

const CONF = "MEMORY=64M\nCORES=1\nPORT=\nDISKS=(AHCI=1M)\n";

/** A VM with a job of its own, and a rescue that boots. */
async function withJob(conf = "", profile = ""): Promise<Sandbox> {
  const box = new Sandbox(CONF + conf);
  await box.ok("create", "G");
  const rescue = join(box.home, "vm/rescue-x86_64");
  for (const name of ["vmlinuz", "initrd.img"]) box.write(join(rescue, name), name);
  box.write(join(rescue, "guest.env"), `RESCUE_KERNEL=vmlinuz\nRESCUE_INITRD=initrd.img\n${profile}`);
  box.write("check.job", "#!/bin/sh\n# Checks something. And more.\ntrue\n");
  return box;
}

/** A rescue that runs its job: writes into `.out`, and shuts down. */
const rescue =
  (work: { status?: string; log?: string; end?: string; files?: (out: string) => void } = {}) =>
  (qemu: FakeQemu): void => {
    const { status = "0", log = "working\n", end = "guest-shutdown", files } = work;
    const out = join(qemu.directory, ".out");
    void (async () => {
      await until("the job is followed", () => qemu.isTaken("ask.sock"));
      writeFileSync(join(out, "STARTED"), "");
      writeFileSync(join(out, "job.log"), log);
      files?.(out);
      if (status !== "") writeFileSync(join(out, "STATUS"), `${status}\n`);
      qemu.end(end);
    })();
  };

/** A rescue that is ready at once, and can be resumed from its saved state. */
const warm = (more: Behaviour = {}, runs = rescue()): Behaviour => ({
  ...more,
  started: (qemu) => {
    void (async () => {
      const argv = qemu.argv.join(" ");
      if (argv.includes("rescue.warm")) {
        await until("somebody listens", () => qemu.isTaken("control.sock"));
        qemu.say("control.sock", "ready\n");
      } else if (argv.includes("-incoming")) {
        await until("it goes on", () => qemu.heard["control.sock"]?.some((line) => line.startsWith("go ")));
        qemu.say("control.sock", "up\n");
        runs(qemu);
      } else rescue()(qemu);
    })();
  },
});

/** Writes into `.out` what a rescue without a channel does. */
const forge = (qemu: FakeQemu): void => {
  const out = join(qemu.directory, ".out");
  for (const name of ["STATUS", "FINISHED"]) {
    rmSync(join(out, name), { force: true });
    writeFileSync(join(out, name), "0\n");
  }
};

async function withWarm(): Promise<Sandbox> {
  const box = await withJob("", "RESCUE_VMLINUX=vmlinux\n");
  box.write(join(box.home, "vm/rescue-x86_64/vmlinux"), "vmlinux");
  return box;
}

describe("job", () => {
  test("runs hooks and job: log on stdout, results in .out", async () => {
    using box = await withJob();
    box.write("check.pre", 'echo "pre $GUESTNAME" >"$WORKDIR/.in/given"\n');
    box.write("check.post", 'echo "post $(cat "$WORKDIR/.out/made")"\n');
    box.qemu = {
      started: rescue({
        files: (out) => {
          expect(readFileSync(join(out, "../.in/given"), "utf8")).toBe("pre G\n");
          expect(readFileSync(join(out, "../.in/job.sh"), "utf8")).toContain("Checks something");
          writeFileSync(join(out, "made"), "in the rescue");
        },
      }),
    };
    const { stdout } = await box.ends(0, "job check");
    expect(stdout).toBe("working\npost in the rescue\n");
    const { argv } = box.qemus[0]!;
    expect(argv.join(" ")).toContain("rescue.disks=1");
    expect(argv.join(" ")).toContain(join(box.work, "disk-0.img"));
    expect(existsSync(join(box.work, ".in"))).toBe(false);
    expect(readdirSync(box.work).filter((name) => name.endsWith(".sock"))).toEqual([]);
    // The guest has not run.
    expect(await box.json("status")).toMatchObject({ state: "stopped", lastEnd: null });
    await box.running();
    await box.ok("stop", "--force");
    box.qemu = { started: rescue() };
    await box.ok("job", "check");
    expect((await box.json("status")).lastEnd.end).toBe("stopped");
  });

  test("of a guest with Secure Boot: without its firmware, under which a kernel loads no unsigned modules", async () => {
    using box = await withJob();
    const volume = Buffer.alloc(4096);
    volume.writeBigUInt64LE(4096n, 32);
    volume.write("_FVH", 40);
    const [code, vars] = ["code", "vars"].map((name) => box.write(join(box.top, name), volume));
    box.configure(`OVMF_CODE=${code}\nOVMF_VARS=${vars}\n`);
    for (const secure of ["", "on"]) {
      await box.ok("set", "UEFI=1", `SECURE_BOOT=${secure}`, "TPM=2.0");
      box.qemu = { started: rescue() };
      await box.ok("job", "check");
      const words = box.qemus.at(-1)!.argv.join(" ");
      expect(words.includes("pflash0")).toBe(secure === "");
      expect(words).not.toContain("tpm");
    }
  });

  test("status: a job whose rescue is being prepared is running; one that was killed is not", async () => {
    using box = await withJob();
    let noted: number | undefined;
    box.qemu = {
      started: (qemu) => {
        noted = readMark(box.work)?.job;
        rescue()(qemu);
      },
    };
    await box.ok("job", "check");
    expect(noted).toBe(process.pid);
    expect(readMark(box.work)?.job).toBeUndefined();
    updateMark(box.work, { lastRun: "unknown", job: process.pid });
    {
      using _lock = await lockVm(box.host, "test");
      expect(await box.json("status")).toMatchObject({ state: "running", job: true });
      await box.ends(0, "list", /^G +job /m);
    }
    expect(await box.json("status")).toMatchObject({ state: "crashed" });
  });

  test("a job keeps the exit reason of the guest's last run", async () => {
    using box = await withJob();
    await box.running();
    await box.ok("stop", "--force");
    expect((await box.json("status")).lastEnd.end).toBe("stopped");
    box.qemu = { started: rescue() };
    await box.ends(
      0,
      "--share=a:/tmp -c 3 job check",
      "--share has no effect on a job",
      "--cores has no effect",
    );
    expect(await box.json("status")).toMatchObject({ state: "stopped", lastEnd: { end: "stopped" } });
    await box.ends(0, "backup", "power cut");
  });

  test("one that was killed is no end of the run before it, until the next run", async () => {
    using box = await withJob();
    await box.running();
    await box.ok("stop", "--force");
    box.qemu = { started: rescue({ end: "host-signal" }) };
    await box.ends(74, "job check");
    const interrupted = { state: "stopped", lastEnd: { end: "killed", at: null, how: INTERRUPTED } };
    expect(await box.json("status")).toMatchObject(interrupted);
    box.qemu = { started: rescue() };
    await box.ok("job", "check");
    expect(await box.json("status")).toMatchObject(interrupted);
    await box.ends(0, "backup", INTERRUPTED_JOB);
    box.qemu = {};
    await box.running();
    await box.ok("stop", "--force");
    expect(await box.json("status")).toMatchObject({ lastEnd: { end: "stopped", at: expect.any(String) } });
  });

  test.each<[what: string, mark: Partial<Mark>]>([
    ["a clone", { clone: { directory: "/srv/original" } }],
    ["a restored VM", {}],
  ])(
    "%s that has not run since has no last run after its job, however the guest had ended",
    async (_, mark) => {
      using box = await withJob();
      updateMark(box.work, { ...mark, restored: "crash-consistent" });
      for (const status of ["0", "7"]) {
        box.qemu = { started: rescue({ status }) };
        await box.ends(Number(status), "job check");
        expect(await box.json("status")).toMatchObject({ state: "created", lastEnd: null });
      }
      await box.ends(0, "backup", "crash-consistent");
      writeFileSync(join(box.work, "disk-0.img"), "", { flag: "a" });
      utimesSync(join(box.work, "disk-0.img"), 9e9, 9e9);
      await box.ends(0, "destroy", "these changes are lost");
    },
  );

  test.each<[title: string, behaviour: Behaviour, status: number, printed: string, state: string]>([
    ["a job that fails", { started: rescue({ status: "7" }) }, 7, "job.log", "stopped"],
    ["a job without a status", { started: rescue({ status: "" }) }, 74, "status", "stopped"],
    ["an invalid status", { started: rescue({ status: "300" }) }, 74, "status", "stopped"],
    [
      "a rescue that is killed after a successful job",
      { started: rescue({ end: "host-signal" }) },
      74,
      "host-signal",
      "stopped",
    ],
    [
      "a panic",
      {
        console: "\u001b[1mKernel panic - not syncing\u001b[0m\nend\n",
        started: rescue({ status: "", end: "guest-panic" }),
      },
      74,
      "Kernel panic",
      "stopped",
    ],
    [
      "qemu that does not start",
      { refuse: { status: 1, words: "no such device" } },
      74,
      "no such device",
      "created",
    ],
  ])("%s", async (_title, behaviour, status, printed, state) => {
    using box = await withJob();
    box.write("check.post", "echo not run >&2; exit 1\n");
    box.qemu = behaviour;
    const { stderr } = await box.ends(status, "job check", printed);
    expect(stderr).not.toContain("not run");
    const { state: after, lastEnd } = await box.json("status");
    expect(after).toBe(state);
    // Of a run before it nothing is shown.
    if (state === "stopped" && lastEnd !== null)
      expect(lastEnd).toMatchObject({ at: null, how: INTERRUPTED });
  });

  test.each<[hook: "pre" | "post", text: string, status: number, started: number]>([
    ["pre", "exit 3", 1, 0],
    ["pre", "kill -9 $$", 1, 0],
    ["pre", "fatal 'not today'", 1, 0],
    ["post", "exit 3", 1, 1],
  ])("check.%s with %j → %i", async (hook, text, status, started) => {
    using box = await withJob();
    box.write(`check.${hook}`, `${text}\n`);
    box.qemu = { started: rescue() };
    await box.ends(status, "job check", hook);
    expect(box.qemus.length).toBe(started);
  });

  test.each<[title: string, line: string, asked: boolean, printed: string]>([
    ["the start of the rescue", "job check", false, "did not start"],
    ["the end of the job", "-t 1 job check", true, "did not finish"],
  ])("limits the time for %s (124)", async (_title, line, starts, printed) => {
    using box = await withJob(starts ? "" : "RESCUE_START_TIMEOUT=1\n");
    let told = false;
    box.qemu = {
      answers: { system_powerdown: () => ({}) },
      started: (qemu) => {
        if (starts)
          void until("the job is followed", () => qemu.isTaken("ask.sock")).then(() =>
            writeFileSync(join(qemu.directory, ".out/STARTED"), ""),
          );
        // The runner receives `stop`, and unmounts the disks.
        void until("it is told to stop", () => qemu.heard["control.sock"]?.includes("stop")).then(
          () => {
            told = true;
            qemu.powerOff();
          },
          () => {},
        );
      },
    };
    using _clock = fastClock();
    await box.ends(124, line, printed);
    expect(told).toBe(starts);
  });

  test("asks the rescue's questions on the terminal", async () => {
    using box = await withJob();
    box.terminal = true;
    box.stdin = "secrex\u007ft\n";
    box.qemu = {
      started: (qemu) => {
        void (async () => {
          await until("the job is followed", () => qemu.isTaken("ask.sock"));
          qemu.say("ask.sock", "ask Password of /dev/sda1:\n");
          await until("it is answered", () => qemu.heard["ask.sock"]!.length > 0);
          rescue()(qemu);
        })();
      },
    };
    await box.ends(0, "job check", "Password of /dev/sda1:");
    expect(box.qemus[0]!.heard["ask.sock"]).toEqual(["answer secret"]);
  });

  test("reports to the rescue that there is no terminal to ask", async () => {
    using box = await withJob();
    box.qemu = {
      started: (qemu) => {
        void (async () => {
          await until("the job is followed", () => qemu.isTaken("ask.sock"));
          qemu.say("ask.sock", "ask Password\n");
          await until("it is answered", () => qemu.heard["ask.sock"]!.length > 0);
          rescue()(qemu);
        })();
      },
    };
    await box.ok("job", "check");
    expect(box.qemus[0]!.heard["ask.sock"]).toEqual(["none"]);
  });

  test("reports symlinks that point outside .out", async () => {
    using box = await withJob();
    box.qemu = { started: rescue({ files: (out) => symlinkSync("/etc/passwd", join(out, "link")) }) };
    await box.ok("job", "check");
  });

  test.each<
    [title: string, prepare: (box: Sandbox) => unknown, line: string, status: number, printed: string]
  >([
    ["no such job", () => {}, "job chekc", 66, "job check"],
    ["a path", () => {}, "job ./check.job", 64, "path"],
    [
      "no rescue",
      (box) => rmSync(join(box.home, "vm"), { recursive: true }),
      "job check",
      66,
      "rescue build",
    ],
    [
      "a rescue without its kernel",
      (box) => rmSync(join(box.home, "vm/rescue-x86_64/vmlinuz")),
      "job check",
      66,
      "RESCUE_KERNEL",
    ],
    ["another rescue", () => {}, "--rescue=other job check", 66, "--name=other"],
    [
      "a job that other users can write",
      (box) => chmodSync(box.path("check.job"), 0o666),
      "job check",
      78,
      "chmod",
    ],
    [
      "a directory in its place",
      (box) => (rmSync(box.path("check.job")), mkdirSync(box.path("check.job"))),
      "job check",
      74,
      "check.job",
    ],
    ["no working files", (box) => box.ok("@backup", "@destroy"), "job check", 66, "working files"],
    ["too many processors", () => {}, "--rescue-cores=500 job check", 64, "rescue-cores"],
  ])("%s", async (_title, prepare, line, status, printed) => {
    using box = await withJob();
    await prepare(box);
    await box.ends(status, line, printed);
    expect(box.qemus).toEqual([]);
  });

  test("--list shows the VM's own jobs, the user's and the bundled ones", async () => {
    using box = await withJob();
    box.write(join(box.home, "vm/scripts/jobs/mine.job"), "# Does mine.\n");
    await box.ends(
      0,
      "job --list",
      /check +this VM's own +Checks something\n/,
      /mine .*Does mine/,
      "add-ssh-keys",
    );
  });

  test("a kernel of another architecture (78)", async () => {
    using box = await withJob();
    const image = Buffer.alloc(64);
    image.write("ARM\x64", 56);
    box.write(join(box.home, "vm/rescue-x86_64/vmlinuz"), image);
    await box.ends(78, "job check", "aarch64");
  });
});

describe("a saved state", () => {
  // The connection of a fake qemu in this process cannot be waited for without letting it run.
  let sent: ReturnType<typeof spyOn>;
  beforeAll(() => {
    sent = spyOn(descriptors, "sendNamedDescriptor").mockImplementation(async (_monitor, _name, fd) => {
      writeSync(fd, "devices");
    });
  });
  afterAll(() => sent.mockRestore());

  test("is saved once, and used from then on", async () => {
    using box = await withWarm();
    box.qemu = warm();
    await box.ok("job", "check");
    expect(box.qemus.length).toBe(2);
    const startedWith = (word: string): FakeQemu =>
      box.qemus.find(({ argv }) => argv.join(" ").includes(word))!;
    const [saved, resumed] = [startedWith("rescue.warm"), startedWith("-incoming")];
    expect(saved.argv.join(" ")).not.toContain("disk-0.img");
    expect(resumed.requests.map(({ execute }) => execute)).toEqual(
      expect.arrayContaining(["migrate-incoming", "cont"]),
    );
    // The number of disks, the time, a seed.
    expect(resumed.heard["control.sock"]).toContainEqual(
      expect.stringMatching(/^go 1 \d+\.\d{3} [0-9a-f]{128}$/),
    );
    expect(saved.argv.join(" ")).toContain("share=on");
    expect(resumed.argv.join(" ")).toContain("share=off");
    const warmDirectory = join(box.home, ".cache/vm/warm");
    const [name, ...others] = readdirSync(warmDirectory);
    expect(others).toEqual([]);
    expect(readdirSync(join(warmDirectory, name!)).toSorted()).toEqual(["boot", "devices", "ram"]);
    expect(statSync(join(warmDirectory, name!, "ram")).mode & 0o777).toBe(0o600);
    await box.ok("job", "check");
    expect(box.qemus.length).toBe(3);
    const detail = JSON.parse((await box.vm("doctor", "--json")).stdout).checks.find(
      (item: any) => item.name === "rescue-states",
    ).detail;
    expect(detail).toContain(`${warmDirectory}: 1 saved state, `);
    expect(detail).toContain(`rm -r ${warmDirectory}`);
  });

  test("without a network the rescue removes its card", async () => {
    using box = await withWarm();
    box.qemu = warm({ answers: { set_link: () => ({}) } });
    for (const _ of ["saves", "uses"]) await box.ok("--no-netdev", "job", "check");
    const { heard, requests } = box.qemus.at(-1)!;
    expect(heard["control.sock"]).toContainEqual(expect.stringMatching(/^go 1 .* offline$/));
    expect(requests.map(({ execute }) => execute).join(" ")).toContain("set_link cont");
  });

  test("of a job that was killed is not there, and its leftovers are removed", async () => {
    using box = await withWarm();
    box.qemu = warm();
    const partial = join(box.home, ".cache/vm/warm/.vm-partial-1");
    mkdirSync(partial, { recursive: true, mode: 0o700 });
    writeFileSync(join(partial, "ram"), "half");
    utimesSync(partial, 1, 1);
    await box.ok("job", "check");
    expect(readdirSync(join(box.home, ".cache/vm/warm"))).toEqual([
      expect.stringMatching(/^rescue-x86_64\.[0-9a-f]{32}$/),
    ]);
  });

  test.each<[title: string, behaviour: Behaviour]>([
    [
      "cannot be made",
      { answers: { migrate: (_args, qemu) => qemu.emit("MIGRATION", { status: "failed" }) } },
    ],
    [
      "is rejected",
      { answers: { "migrate-incoming": (_args, qemu) => qemu.emit("MIGRATION", { status: "failed" }) } },
    ],
  ])("a state that %s: the rescue boots, and it is not used again", async (_title, behaviour) => {
    using box = await withWarm();
    box.qemu = warm(behaviour);
    const { stderr } = await box.ok("job", "check");
    expect(box.qemus.at(-1)!.argv.join(" ")).not.toContain("-incoming");
    const told = /cannot use a saved state of the rescue: .*; jobs boot it until .*: rm (\S+\.failed)\n/.exec(
      stderr,
    );
    expect(told).not.toBeNull();
    const count = box.qemus.length;
    expect((await box.ok("job", "check")).stderr).not.toContain("saved state");
    expect(box.qemus.length).toBe(count + 1);
    const checks = async (): Promise<{ name: string; detail: string }[]> =>
      JSON.parse((await box.vm("doctor", "--json")).stdout).checks;
    const failed = (await checks()).filter(({ name }) => name === "rescue-states");
    expect(failed).toMatchObject([{ state: "limited", detail: expect.stringContaining(`rm ${told![1]}`) }]);
    rmSync(told![1]!);
    expect((await checks()).some(({ name }) => name === "rescue-states")).toBe(false);
    box.qemu = warm();
    const tried = box.qemus.length;
    await box.ok("job", "check");
    // The one whose state is saved may be heard of last.
    const started = box.qemus.slice(tried).map(({ argv }) => argv.includes("-incoming"));
    expect(started.toSorted()).toEqual([false, true]);
  });

  test.each<[title: string, told: string | undefined, status: number]>([
    ["the status that the rescue tells", "status 7\n", 7],
    ["74 without one", undefined, 74],
  ])("files that a job writes as the rescue would are no answer: %s", async (_title, told, status) => {
    using box = await withWarm();
    box.qemu = warm({}, (qemu) => {
      void (async () => {
        await until("the job is followed", () => qemu.isTaken("ask.sock"));
        qemu.say("control.sock", "started\n");
        await until("the start is noted", () => existsSync(join(qemu.directory, ".out/STARTED")));
        forge(qemu);
        if (told !== undefined) {
          qemu.say("control.sock", told);
          const path = join(qemu.directory, ".out/STATUS");
          // The command removes it once it has it.
          await until("it is heard", () => !existsSync(path) || readFileSync(path, "utf8") !== "0\n");
          if (existsSync(path)) forge(qemu);
        }
        qemu.end("guest-shutdown");
      })();
    });
    await box.ends(status, "job check");
  });
});

describe("rescue", () => {
  test("list shows which are usable", async () => {
    using box = await withJob();
    box.write(join(box.home, "vm/broken/guest.env"), "RESCUE_KERNEL=vmlinuz\nRESCUE_INITRD=x\n");
    box.write(join(box.home, "vm/cd/guest.env"), "RESCUE_ISO=cd.iso\n");
    box.write(join(box.home, "vm/cd/cd.iso"), "\0".repeat(65536));
    await box.ends(0, "rescue list", /rescue-x86_64 .*usable/, /broken .*not usable/, /cd +CD/);
    // Their directory is no VM's.
    await box.ends(0, ["-d", join(box.home, "vm"), "rescue", "list"], /rescue-x86_64 .*usable/);
    rmSync(join(box.home, "vm"), { recursive: true });
    await box.ends(0, "rescue list", "rescue build");
  });

  test.each<[line: string, status: number, printed: string]>([
    ["rescue", 64, "ACTION"],
    ["rescue make", 64, "make"],
    ["rescue list --name=x", 64, "--name"],
    ["rescue build --name=", 64, "--name"],
    ["rescue build --name=a/b", 64, "--name"],
    ["rescue build --compress=zip", 64, "zip"],
    ["rescue build --iso=a --kernel=b", 64, "--kernel"],
    ["rescue build --name=new --root=/nowhere", 66, "/nowhere"],
    ["rescue build --name=new --kernel=/nowhere", 66, "/nowhere"],
    ["rescue build --name=new --iso=/nowhere.iso", 66, "/nowhere.iso"],
    ["rescue build --name=taken", 73, "taken"],
  ])("%s → %i", async (line, status, printed) => {
    using box = await withJob();
    box.write(join(box.home, "vm/taken/file"), "");
    await box.ends(status, line, printed);
    expect(readdirSync(join(box.home, "vm")).toSorted()).toEqual(["rescue-x86_64", "taken"]);
  });
});
