/** VMs in the background: started, listed, controlled, stopped; and their status after the end. */
import { beforeAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Status } from "../../src/vm/status-types.ts";
import type { Guests } from "../guests/build.ts";
import { binary, guests, Sandbox, until } from "./harness.ts";
import {
  allVariations,
  configure,
  expectError,
  freePort,
  mode,
  names,
  qemuPid,
  smallSandbox,
  suite,
  untilQuiet,
  testInTurn,
} from "./tools.ts";

let iso: Guests;

const statusOf = async (box: Sandbox): Promise<Status> =>
  JSON.parse((await box.ok(["status", "--json"])).stdout) as Status;

/** A VM in the background, running for ever and ignoring the power button. */
async function hanging(options: readonly string[] = []): Promise<Sandbox> {
  const box = smallSandbox();
  await box.ok([...options, "@create", "G", iso.hangIso, "@run", "--detach"]);
  return box;
}

/** A Linux that runs this script, then shuts down, or when its power button is pressed. */
async function linux(script: string, run: readonly string[] = []): Promise<Sandbox> {
  const box = smallSandbox();
  box.write("guest.sh", script);
  await box.ok(["-m", "512M", "-k", "@create", "L", iso.linuxIso, "@run", "-b", ...run]);
  return box;
}

suite("headless", () => {
  beforeAll(async () => {
    iso = await guests();
  });

  test("a run in the background: no process of the program remains; visible, pausable, and locked against changes", async () => {
    using box = await hanging();
    let left: string[] = [];
    // bwrap needs a moment to end.
    await until("only qemu is left", async () => {
      left = await box.leftovers();
      return left.length === 1 && /^\d+ \S*qemu-system-x86_64 /.test(left[0]!);
    });
    const pid = Number.parseInt(left[0]!, 10);
    // Another session, which outlives a lost connection.
    const [own, its] = ["self", pid].map((of) => {
      const [, , , session, terminal] = readFileSync(`/proc/${of}/stat`, "utf8")
        .replace(/^.*\) /, "")
        .split(" ");
      return { session, terminal };
    });
    expect(its!.session).not.toBe(own!.session!);
    expect(its!.terminal).toBe("0");

    const status = await statusOf(box);
    expect(status).toMatchObject({ name: "G", directory: box.host, state: "running", pid, job: false });
    expect(status.disks).toEqual([
      {
        file: "disk-0.img",
        number: 0,
        bus: "AHCI",
        virtualBytes: 16 << 20,
        actualBytes: expect.any(Number),
        attached: true,
        aio: expect.any(String),
      },
    ]);
    expect((await box.ok(["status"])).stdout).toMatch(/^state: +running$/m);
    for (const command of ["run", "destroy"]) expectError(await box.vm([command]), 75, /the VM is running/);

    await box.ok(["pause"]);
    expect((await statusOf(box)).state).toBe("paused");
    await box.ok(["resume"]);
    expect((await statusOf(box)).state).toBe("running");

    for (const name of names(box.work)) {
      const path = join(box.work, name);
      if (statSync(path).isSocket() || /^(events|console|qemu)/.test(name))
        expect(`${name} ${mode(path)}`).toBe(`${name} 600`);
    }
    expect(mode(box.work)).toBe("700");

    const result = await box.vm(["stop", "--timeout=1"]);
    expectError(result, 124, /did not power off within 1 seconds/);
    expect(await statusOf(box)).toMatchObject({ state: "stopped", lastEnd: { end: "stopped" } });
    await untilQuiet(box);
    expect(names(box.work).filter((name) => name.endsWith(".sock"))).toEqual([]);
    expect((await box.ok(["stop"])).stderr).toContain("is not running");
    for (const command of ["pause", "resume"])
      expectError(await box.vm([command]), 66, /the VM in .* is not running/);
  });

  testInTurn(1, 4)(
    "stop resumes a paused guest and presses the power button, again if the guest has missed the first",
    async () => {
      // Like a booting guest, which does not handle the button yet.
      using box = await linux(
        "kill $(cat /acpid.pid); echo READY; sleep 3; acpid -c /etc/acpi -p /acpid.pid -l /acpid.log; sleep 1000",
      );
      await until("the guest", () => box.console().includes("READY"));
      await box.ok(["pause"]);
      const { stderr } = await box.ok(["stop"]);
      expect(stderr).toContain("the guest shut down");
      expect(box.console()).toContain("POWER BUTTON");
      expect(await statusOf(box)).toMatchObject({ state: "stopped", lastEnd: { end: "powered-off" } });
      await box.ok(["backup"]);
      expect(JSON.parse(box.read("backups/S0/manifest.json"))).toMatchObject({ consistency: "offline" });
    },
  );

  test("a guest that shuts down: status shows the exit reason, the next command records it", async () => {
    using box = smallSandbox();
    await box.ok(["@create", "G", iso.installerIso, "@run", "-b"]);
    await untilQuiet(box);
    // Reading changes nothing.
    for (let look = 0; look < 2; look++)
      expect(await statusOf(box)).toMatchObject({ state: "stopped", lastEnd: { end: "reset" } });
    expect(existsSync(box.path(".work/FIRSTTIME"))).toBe(true);
    const { stderr } = await box.ok(["run", "--detach"]);
    expect(stderr).toMatch(/the last run ended .*: the guest rebooted/);
    expect(existsSync(box.path(".work/FIRSTTIME"))).toBe(false);
    await untilQuiet(box);
    expect(box.console()).toContain("BOOTED FROM DISK");
    expect((await box.ok(["backup"])).stderr).toMatch(/the last run ended .*: the guest shut down/);
  });

  test("a killed qemu: status shows it as crashed; run and destroy work without preparation", async () => {
    using box = await hanging(["-k"]);
    process.kill(await qemuPid(box), "SIGKILL");
    await untilQuiet(box);
    expect(await statusOf(box)).toMatchObject({ state: "crashed", lastEnd: { end: "killed" } });
    const { stderr } = await box.ok(["restart"]);
    expect(stderr).toMatch(/the last run ended .*: qemu was killed/);
    process.kill(await qemuPid(box), "SIGTERM");
    await untilQuiet(box);
    const again = await box.ok(["destroy"]);
    expect(again.stderr).toMatch(/the last run ended .*: qemu was terminated by a signal/);
    expect(existsSync(box.path(".work"))).toBe(false);
  });

  test("without its sockets: still shown as running, and killed by destroy --force", async () => {
    using box = await hanging();
    for (const name of names(box.work)) if (name.endsWith(".sock")) rmSync(join(box.work, name));
    expect((await statusOf(box)).state).toBe("running");
    for (const command of ["run", "destroy"]) expectError(await box.vm([command]), 75, /the VM is running/);
    await box.ok(["destroy", "--force"]);
    await untilQuiet(box);
  });

  test("restart uses the options of the last start", async () => {
    const port = await freePort();
    using box = smallSandbox();
    await box.ok(["-k", "@create", "G", iso.hangIso]);
    await box.ok(["-f", `tcp:127.0.0.1:${port}-:22`, "-m", "48M", "run", "-b"]);
    const { pid } = await statusOf(box);
    await box.ok(["restart", "--force"]);
    const status = await statusOf(box);
    expect(status).toMatchObject({ state: "running", forwards: [`hostfwd=tcp:127.0.0.1:${port}-:22`] });
    expect(status.pid).not.toBe(pid);
    expect((await box.leftovers()).join()).toContain(" -m 48M ");
    await box.ok(["stop", "--force"]);
  });

  testInTurn(2, 4)("--wait: for a time, for SSH; reports a guest that is off", async () => {
    using box = await linux("ifconfig eth0 10.0.2.15 up; while :; do echo SSH-2.0-test | nc -l -p 22; done", [
      "--ssh",
      "--wait=ssh",
    ]);
    const [rule] = (await statusOf(box)).forwards!;
    expect(rule).toMatch(/^hostfwd=tcp:127\.0\.0\.1:\d+-:22$/);
    await box.ok(["stop", "--force"]);
    using off = smallSandbox();
    const result = await off.vm(["@create", "G", iso.haltIso, "@run", "-b", "--wait=60"]);
    expectError(result, 74, /the guest is off already/);
    expectError(await off.vm(["run", "--wait=1"]), 64, /--wait needs --detach/);
    expectError(await off.vm(["run", "-b", "--wait=x"]), 64, /allowed: ssh, agent or SECONDS/);
  });

  test("list: those below PROFILES and others that were created or run elsewhere; a broken one with its error", async () => {
    using box = smallSandbox();
    const profiles = join(box.top, "all of them");
    configure(box, `PROFILES="${profiles}"\nPORT=\nDISKS=(AHCI=16M)\nMEMORY=64M\n`);
    for (const name of ["b one", "a", "wrong", "no vm"]) mkdirSync(join(profiles, name), { recursive: true });
    await box.ok(["-d", join(profiles, "b one"), "create", "Second"]);
    await box.ok(["-d", join(profiles, "a"), "create", "First"]);
    await Bun.write(join(profiles, "wrong/guest.env"), "CORES=many\n");
    await box.ok(["@create", "Elsewhere", iso.hangIso, "@run", "-b"]);
    expect((await box.ok(["list", "-q"])).stdout).toBe(`a\nb one\nwrong\n${box.host}\n`);
    const all = JSON.parse((await box.ok(["list", "--json"])).stdout) as Status[];
    expect(all.map(({ name, state }) => `${name} ${state}`)).toEqual([
      "First created",
      "Second created",
      "wrong broken",
      "Elsewhere running",
    ]);
    const { stdout } = await box.ok(["list"]);
    expect(stdout).toMatch(/^First +created +x86_64 +2 +64 MiB +1, /m);
    expect(stdout).toContain("CORES");
    await box.ok(["stop", "--force"]);
    expect((await box.ok(["list", "-q"])).stdout).toBe(`a\nb one\nwrong\n${box.host}\n`);
  });

  test("from cron: without a terminal, in a minimal environment", async () => {
    using box = smallSandbox();
    await box.ok(["create", "G", iso.hangIso]);
    const cron = async (...words: string[]): Promise<number> => {
      const env = ["-i", "PATH=/usr/bin:/bin", `HOME=${box.home}`, `TMPDIR=${box.tmp}`];
      const child = Bun.spawn(["setsid", "env", ...env, binary, ...words], {
        cwd: box.host,
        stdio: ["ignore", "ignore", "ignore"],
      });
      return child.exited;
    };
    expect(await cron("run", "--detach")).toBe(0);
    expect(await cron("status")).toBe(0);
    expect((await statusOf(box)).state).toBe("running");
    expect(await cron("stop", "--force")).toBe(0);
    expect((await statusOf(box)).state).toBe("stopped");
  });

  test("many VMs by one shell loop: none lost, none left, no process of the program remains", async () => {
    using box = smallSandbox();
    const count = allVariations ? 30 : 8;
    const profiles = join(box.top, "vms");
    configure(box, `PROFILES="${profiles}"\nPORT=\nDISKS=(AHCI=16M)\nMEMORY=32M\nCORES=1\n`);
    mkdirSync(profiles);
    const run = async (script: string): Promise<string> => {
      const child = Bun.spawn(["bash", "-euc", script, "loop", iso.hangIso], {
        cwd: profiles,
        env: box.env({ PATH: `${dirname(binary)}:${process.env.PATH}` }),
        stdio: ["ignore", "pipe", "pipe"],
      });
      const [said, told] = await Promise.all([child.stdout.text(), child.stderr.text()]);
      expect(await child.exited, told).toBe(0);
      return said;
    };
    await run(`for i in $(seq ${count}); do mkdir v$i; vm -d v$i @create g$i "$1" @run -b; done`);
    const processes = (await box.leftovers()).map((line) => line.split(" ")[1]!.replace(/.*\//, ""));
    expect(processes).toEqual(Array.from({ length: count }, () => "qemu-system-x86_64"));
    const states = `vm list --json | grep -c '"state": '`;
    expect(await run(`${states}'"running"'`)).toBe(`${count}\n`);
    await run('for name in $(vm list -q); do vm -d "$name" screenshot "$name.png"; done');
    expect(names(profiles).filter((name) => name.endsWith(".png"))).toHaveLength(count);
    await run('for name in $(vm list -q); do vm -d "$name" stop --force; done');
    expect(await run(`${states}'"stopped"'`)).toBe(`${count}\n`);
    expect(await box.leftovers()).toEqual([]);
  });
});
