/** A running VM: access, endings, and their effect on the rest of a batch. */
import { beforeAll, describe, expect, test } from "bun:test";
import {
  cpSync,
  existsSync,
  lchownSync,
  mkdirSync,
  readlinkSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { join } from "node:path";
import type { Guests } from "../guests/build.ts";
import { guests, until, type Running, type Sandbox } from "./harness.ts";
import {
  configure,
  expectError,
  freePort,
  installed,
  listing,
  names,
  qemuPid,
  rootTest,
  runNumber,
  sampled,
  testInTurn,
  sha256,
  shell,
  smallSandbox,
  startUntil,
  suite,
  untilQuiet,
} from "./tools.ts";

let iso: Guests;

/** A VM that runs for ever, ignoring the power button. */
async function hanging(box: Sandbox, rest: readonly string[] = []): Promise<Running> {
  return startUntil(box, ["run", iso.hangIso, ...rest], "HANGING");
}

/** Ends the VM of `hanging`. */
async function end(box: Sandbox, run: Running): Promise<void> {
  process.kill(await qemuPid(box), "SIGKILL");
  await run.done;
  await untilQuiet(box);
}

/** Every command refuses, and changes nothing. */
async function disbelieved(box: Sandbox, options: Parameters<Sandbox["vm"]>[1] = {}): Promise<void> {
  const before = listing(box.top);
  for (const command of ["run", "backup", "restore", "destroy"])
    expectError(await box.vm([command], options), 74, /cannot use .*\.work: /);
  expect(listing(box.top)).toEqual(before);
}

suite(
  "running",
  () => {
    beforeAll(async () => {
      iso = await guests();
    });

    testInTurn(0, 4)("Ctrl-C presses the power button; the run ends with 130", async () => {
      using box = smallSandbox();
      await box.ok(["create", "L", iso.linuxIso]);
      box.write("guest.sh", "echo READY; sleep 1000");
      const run = await startUntil(box, ["-m", "512M", "@run", "@backup"], "READY");
      run.kill("SIGINT");
      const result = await run.done;
      expectError(result, 130, /SIGINT/);
      expect(box.console()).toContain("POWER BUTTON");
      expect(existsSync(box.path("backups"))).toBe(false);
      expect(await box.leftovers()).toEqual([]);
    });

    test.each([
      ["SIGINT", 130],
      ["SIGTERM", 143],
      ["SIGHUP", 129],
    ] as const)("a second %s ends a guest that hangs: %i", async (signal, status) => {
      using box = await installed();
      const run = await hanging(box, ["@backup"]);
      run.kill(signal);
      await until("the program's answer", () => run.stderr().includes("requested the guest to power off"));
      expect(await box.leftovers()).not.toEqual([]);
      run.kill(signal);
      expectError(await run.done, status, new RegExp(signal));
      expect(existsSync(box.path("backups"))).toBe(false);
      expect(await box.leftovers()).toEqual([]);
      await box.ok(["run"]);
      expect(runNumber(box)).toBe(2);
    });

    testInTurn(0, 4)("-t shuts the guest down after that time: 124, and the batch ends", async () => {
      using box = smallSandbox();
      await box.ok(["create", "L", iso.linuxIso]);
      // On a busy machine the guest is still booting when it is asked.
      await box.ok(["set", "STOP_TIMEOUT=900"]);
      box.write("guest.sh", "sleep 1000");
      expectError(
        await box.vm(["-m", "512M", "@run", "-t", "1", "@backup"]),
        124,
        /after 1 seconds: .* shut down/,
      );
      expect(box.console()).toContain("POWER BUTTON");
      expect(existsSync(box.path("backups"))).toBe(false);
    });

    describe("a panic of the guest's kernel", () => {
      const PANICS = "until [ -e /in/go ]; do sleep 0.1; done; echo c >/proc/sysrq-trigger";

      testInTurn(0, 3)("is reported and shown; the first SIGTERM kills the guest", async () => {
        using box = smallSandbox();
        await box.ok(["create", "L", iso.linuxIso]);
        box.write("guest.sh", `echo 0 >/proc/sys/kernel/panic; echo READY; ${PANICS}`);
        const run = await startUntil(box, ["-m", "512M", "run"], "READY");
        box.write("go", "");
        await until("the report", () => run.stderr().includes("kernel panicked"));
        expect((await box.ok(["status"])).stdout).toMatch(/state: +running \(panicked\)/);
        run.kill("SIGTERM");
        expectError(await run.done, 143, /the guest's kernel panicked/);
        expect(JSON.parse((await box.ok(["status", "--json"])).stdout)).toMatchObject({ state: "crashed" });
      });

      testInTurn(1, 3)("in an installation fails it, as the installer has not finished", async () => {
        using box = smallSandbox();
        await box.ok(["create", "L", iso.linuxIso]);
        box.write("guest.sh", `echo READY; ${PANICS}`);
        box.write("go", "");
        expectError(await box.vm(["-m", "512M", "@run", "@backup"]), 74, /the guest's kernel panicked/);
        expect(names(box.work)).toContain("FIRSTTIME");
      });

      testInTurn(2, 3)("leaves the reboot to the guest", async () => {
        using box = smallSandbox();
        configure(box, "KEEPCD=yes\nMEMORY=512M\nCORES=1\nPORT=\nDISKS=(AHCI=16M)\n");
        await box.ok(["create", "L", iso.linuxIso]);
        rmSync(join(box.work, "FIRSTTIME"));
        box.write("guest.sh", `echo READY; ${PANICS}`);
        const run = await startUntil(box, ["run"], "READY");
        box.write("guest.sh", "echo UP AGAIN");
        box.write("go", "");
        const { status, stderr } = await run.done;
        expect({ status, panicked: stderr.includes("kernel panicked") }).toEqual({
          status: 0,
          panicked: true,
        });
        expect(box.console()).toContain("UP AGAIN");
      });
    });

    test("kills a guest that ignores SIGTERM after STOP_TIMEOUT", async () => {
      using box = await installed();
      box.write(".work/guest.env", `STOP_TIMEOUT=1\n${box.read(".work/guest.env")}`);
      const run = await hanging(box);
      run.kill("SIGTERM");
      expectError(await run.done, 143, /SIGTERM/);
      expect(await box.leftovers()).toEqual([]);
    });

    test("no other process may change its files: 75", async () => {
      using box = await installed();
      await box.ok(["backup"]);
      const run = await hanging(box);
      const before = listing(box.path("backups"));
      const disk = sha256(join(box.work, "disk-0.img"));
      const refused = async (...more: string[]): Promise<void> => {
        for (const command of ["run", "restore", "destroy", ...more])
          expectError(await box.vm([command]), 75, /the VM is running/);
        expectError(await box.vm(["create", "G"]), 73, /it contains working files/);
      };
      await refused();
      for (const name of names(box.work)) if (name.endsWith(".sock")) rmSync(join(box.work, name));
      // qemu's lock on the image is other evidence; a live snapshot needs the monitor.
      await refused("backup");
      expect(listing(box.path("backups"))).toEqual(before);
      expect(sha256(join(box.work, "disk-0.img"))).toBe(disk);
      await end(box, run);
      await box.ok(["@backup", "@restore", "@destroy"]);
    });

    test("destroy --force kills it first", async () => {
      using box = await installed();
      await box.ok(["backup"]);
      const run = await hanging(box);
      await box.ok(["destroy", "--force"]);
      const result = await run.done;
      expect(result.status).toBe(74);
      expect(result.stderr).not.toMatch(/internal error|ENOENT/);
      expect(await box.leftovers()).toEqual([]);
      expect(names(box.tmp)).toEqual([]);
      expect(names(box.host)).toEqual(["backups", "guest.env"]);
    });

    test("destroy --force kills it even without its sockets", async () => {
      using box = await installed();
      const run = await hanging(box);
      for (const name of names(box.work)) if (name.endsWith(".sock")) rmSync(join(box.work, name));
      await box.ok(["destroy", "--force"]);
      expect((await run.done).status).toBe(74);
      expect(names(box.tmp)).toEqual([]);
    });

    test.each(sampled(["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"] as const))(
      "%s to qemu: the run fails with 74, and no snapshot is made",
      async (signal) => {
        using box = await installed();
        const run = await hanging(box, ["@backup"]);
        process.kill(await qemuPid(box), signal);
        expectError(await run.done, 74, /did not shut down/);
        expect(existsSync(box.path("backups"))).toBe(false);
        await untilQuiet(box);
        await box.ok(["run"]);
        expect(runNumber(box)).toBe(2);
      },
    );

    test("kill -9 of the program: qemu exits soon, the next commands work", async () => {
      using box = await installed();
      const run = await hanging(box);
      run.kill("SIGKILL");
      await run.done;
      await untilQuiet(box);
      const { stderr } = await box.ok(["backup"]);
      expect(stderr).toMatch(/did not shut down|power cut/);
      expect(JSON.parse(box.read("backups/S0/manifest.json")).consistency).toBe("crash-consistent");
      await box.ok(["@run", "@restore", "@run"]);
      expect(runNumber(box)).toBe(2);
    });

    test("only the run's own files are removed afterwards", async () => {
      using box = await installed();
      await box.ok(["run"]);
      expect(names(box.work)).toEqual(
        [
          ".host",
          ".in",
          ".out",
          ".vm.json",
          "console.log",
          "disk-0.img",
          // Records of the exit reason are kept; run-vm.sh needs them, too.
          "events.in",
          "events.out",
          "guest.env",
          "qemu.log",
          "run-vm.sh",
        ].toSorted(),
      );
    });

    test("while it runs, its sockets and files are accessible only to the owner", async () => {
      using box = await installed();
      const run = await hanging(box);
      expect(await shell("find . -perm /077 ! -type l", box.work)).toBe("");
      await end(box, run);
    });

    test("from WORKDIR itself", async () => {
      using box = await installed();
      const cwd = box.path(".work");
      await box.ok(["@run", "@backup", "one"], { cwd });
      expect(runNumber(box)).toBe(2);
      expect(names(box.path("backups"))).toEqual(["LAST", "one"]);
      await box.ok(["destroy"], { cwd });
      expect(names(box.tmp)).toEqual([]);
    });

    test("from WORKDIR itself, which a restore in a batch replaces", async () => {
      using box = await installed();
      await box.ok(["@backup", "@restore", "@run"], { cwd: box.path(".work") });
      expect(runNumber(box)).toBe(2);
      expect(names(box.tmp)).toHaveLength(1);
    });

    test("run-vm.sh by hand runs the same VM; the program detects it", async () => {
      using box = await installed();
      await box.ok(["run"]);
      await shell(`sh ${box.work}/run-vm.sh`, "/");
      expect(runNumber(box)).toBe(3);
      const run = await hanging(box);
      await end(box, run);
      const log = join(box.work, "console.log");
      // It has the output of that run.
      rmSync(log);
      const byHand = Bun.spawn([join(box.work, "run-vm.sh")], {
        cwd: "/",
        stdout: "ignore",
        stderr: "ignore",
      });
      await until("the guest", () => existsSync(log) && box.console().includes("HANGING"));
      await box.ok(["backup"]);
      expectError(await box.vm(["restore"]), 75, /the VM is running/);
      byHand.kill();
      await byHand.exited;
    });

    test("run-vm.sh by hand works with SPICE too", async () => {
      using box = await installed();
      await box.ok([`--port=${await freePort()}`, "run"]);
      await shell(`sh ${box.work}/run-vm.sh`, "/");
      expect(runNumber(box)).toBe(3);
    });

    test("names another command that holds the VM's lock (75)", async () => {
      using box = await installed();
      const holder = Bun.spawn(["flock", "--no-fork", box.host, "sh", "-c", "echo held; exec cat"], {
        stdin: "pipe",
        stdout: "pipe",
      });
      await holder.stdout.getReader().read();
      expectError(
        await box.vm(["backup"]),
        75,
        new RegExp(`locked by another process.*\\(pid ${holder.pid}\\)`),
      );
      holder.kill();
      await holder.exited;
      await box.ok(["backup"]);
    });

    describe(".work is used only if it is this user's", () => {
      test("a copied HOSTDIR does not share the original's working files", async () => {
        using box = await installed();
        await box.ok(["backup"]);
        const copy = join(box.top, "copy");
        cpSync(box.host, copy, { recursive: true, verbatimSymlinks: true });
        await disbelieved(box, { cwd: copy });
        rmSync(join(copy, ".work"));
        await box.ok(["run"], { cwd: copy });
        await box.ok(["run"]);
        expect(runNumber(box)).toBe(2);
      });

      test("a symlink to another directory", async () => {
        using box = smallSandbox();
        const other = join(box.top, "precious");
        mkdirSync(other);
        symlinkSync(other, box.path(".work"));
        await disbelieved(box);
      });

      test("a symlink to another VM's working files", async () => {
        using box = await installed();
        const thief = join(box.top, "thief");
        mkdirSync(thief);
        symlinkSync(box.work, join(thief, ".work"));
        await disbelieved(box, { cwd: thief });
      });

      test("a directory without the program's mark", async () => {
        using box = await installed();
        rmSync(join(box.work, ".vm.json"));
        await disbelieved(box);
      });

      rootTest("a directory recreated by another user", async () => {
        using box = await installed();
        const work = box.work;
        await shell(`chown -R 65534:65534 ${work}`, box.host);
        await disbelieved(box);
        await shell(`chown -R 0:0 ${work}`, box.host);
        lchownSync(box.path(".work"), 65534, 65534);
        await disbelieved(box);
      });

      test("detects a moved HOSTDIR", async () => {
        using box = await installed();
        const moved = join(box.top, "moved here");
        renameSync(box.host, moved);
        // Read-only commands change nothing.
        await box.ok(["status"], { cwd: moved });
        expect(readlinkSync(join(moved, ".work/.host"))).toBe(box.host);
        const result = await box.ok(["run"], { cwd: moved });
        expect(result.stderr).toContain(`moved here from ${box.host}`);
        expect(readFileSync(join(moved, ".work/console.log"), "utf8")).toContain("RUN 2");
        expect((await box.ok(["run"], { cwd: moved })).stderr).not.toContain("moved here");
      });
    });
  },
  ["flock"],
);
