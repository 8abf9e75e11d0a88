import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { created } from "../fixtures/built.ts";
import type { Sandbox } from "../fixtures/sandbox.ts";
import { until } from "../fixtures/sandbox.ts";
import type { VmEvent } from "../../src/store/history.ts";

const readEvents = async (box: Sandbox, ...words: string[]): Promise<VmEvent[]> =>
  (await box.ok("events", "--json", ...words)).stdout
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as VmEvent);

const namesOf = (events: VmEvent[]): string[] => events.map(({ event }) => event);

/** A hook that appends a line to a file, of its variables. */
const writeHook = (box: Sandbox, hook: string, words: string, end = ""): string =>
  box.write(`${hook}.hook`, `echo "${hook} ${words}" >>"$HOSTDIR/hooks.log"\n${end}\n`);
const hooked = (box: Sandbox): string[] =>
  existsSync(box.path("hooks.log")) ? box.read("hooks.log").trim().split("\n") : [];

describe("events", () => {
  test("a run, a backup, a failed one and a restore, in order; also while it runs, and of all VMs", async () => {
    using box = await created();
    const qemu = await box.running();
    qemu.emit("RESET", { guest: true, reason: "guest-reset" });
    expect(namesOf(await readEvents(box))).toEqual(["started", "rebooted"]);
    await box.ok("stop", "--force");
    await box.ok("backup", "S0");
    await box.ends(73, "backup S0");
    await box.ok("restore");
    const events = await readEvents(box);
    expect(namesOf(events)).toEqual([
      "started",
      "rebooted",
      "ended",
      "snapshot",
      "snapshot failed",
      "restored",
    ]);
    expect(events[2]).toMatchObject({ vm: box.host, end: "stopped", how: expect.any(String) });
    expect(events[4]).toMatchObject({ status: 73, how: expect.stringContaining("S0") });
    expect(await readEvents(box, "--all")).toEqual(events);
    expect(namesOf(await readEvents(box, "-n2"))).toEqual(["snapshot failed", "restored"]);
    const { stdout } = await box.ok("events", "--all");
    expect(stdout).toMatch(/^[-\d]{10} [:\d]{8} {2}\/.*\/vm1 {2}rebooted: by the guest$/m);
    expect((await box.ok("events")).stdout).toMatch(/^[-\d]{10} [:\d]{8} {2}snapshot: S0$/m);
  });

  test("the end of a run that nothing recorded yet, and what the next command records, are one event", async () => {
    using box = await created();
    const qemu = await box.running();
    process.kill(qemu.process.pid, "SIGKILL");
    let before: VmEvent[] = [];
    // The fake closes its sockets in its own time.
    for (let tries = 0; before.at(-1)?.event !== "ended" && tries < 200; tries++) {
      await Bun.sleep(2);
      before = await readEvents(box);
    }
    expect(before.at(-1)).toMatchObject({ event: "ended", end: "killed" });
    await box.ok("backup", "S0");
    expect((await readEvents(box)).slice(0, 2)).toEqual(before);
  });

  test("without a VM 66; a wrong number 64", async () => {
    using box = await created();
    await box.ends(66, ["-d", box.tmp, "events"]);
    await box.ends(64, "events -n x", "not a number");
  });

  test("a job's status", async () => {
    using box = await created();
    await box.ends(66, "job none");
    expect(await readEvents(box)).toEqual([]);
  });
});

describe("hooks", () => {
  test("of runs: on-start, on-stop, and on-crash by the command that finds it, without the VM's lock", async () => {
    using box = await created();
    writeHook(box, "on-start", "$GUESTNAME $VM_PID");
    writeHook(box, "on-stop", "$VM_END");
    writeHook(box, "on-crash", "$VM_END");
    const first = await box.running();
    await box.ok("stop", "--force");
    const second = await box.running();
    process.kill(second.process.pid, "SIGKILL");
    await until("qemu is dead", () => !existsSync(`/proc/${second.process.pid}`));
    await box.ok("backup", "S0");
    const { command, qemu } = await box.following("run");
    qemu.powerOff();
    expect((await command).status).toBe(0);
    const pids = [first, second, qemu].map(({ process }) => process.pid);
    const name = (await box.json("status")).name;
    expect(hooked(box)).toEqual([
      `on-start ${name} ${pids[0]}`,
      "on-stop stopped",
      `on-start ${name} ${pids[1]}`,
      "on-crash killed",
      `on-start ${name} ${pids[2]}`,
      "on-stop powered-off",
    ]);
  });

  test("of backups: one before that fails prevents it; one after gets the outcome, and fails the command", async () => {
    using box = await created();
    writeHook(box, "pre-backup", "$VM_SNAPSHOT", "[ ! -e stop ]");
    writeHook(box, "post-backup", "$VM_OUTCOME $VM_SNAPSHOT $VM_STATUS", "[ ! -e bad ]");
    await box.ok("backup", "S0");
    box.write("stop", "");
    await box.ends(1, "backup S1", "pre-backup.hook ended with status 1");
    expect(existsSync(box.path("backups/S1"))).toBe(false);
    box.write("bad", "");
    await box.ends(1, "backup S1", "pre-backup.hook ended", "warning: the hook post-backup.hook ended");
    expect(hooked(box)).toEqual([
      "pre-backup S0",
      "post-backup ok S0 0",
      "pre-backup S1",
      "post-backup failed S1 1",
      "pre-backup S1",
      "post-backup failed S1 1",
    ]);
    box.write("pre-backup.hook", ":");
    await box.ends(1, "backup S1", "the snapshot S1 is complete, but the hook post-backup.hook ended");
    expect(existsSync(box.path("backups/S1"))).toBe(true);
  });

  test("those of all VMs, unless the VM has its own; one that others can write to is refused", async () => {
    using box = await created();
    const shared = box.write(
      join(box.home, "vm/scripts/jobs/pre-backup.hook"),
      'echo shared >>"$HOSTDIR/hooks.log"',
    );
    await box.ok("backup", "S0");
    writeHook(box, "pre-backup", "own");
    await box.ok("backup", "S1");
    expect(hooked(box)).toEqual(["shared", "pre-backup own"]);
    chmodSync(box.path("pre-backup.hook"), 0o666);
    await box.ends(78, "backup S2", "refusing to run");
    expect(readFileSync(shared, "utf8")).toContain("shared");
    chmodSync(box.path("pre-backup.hook"), 0o600);
  });

  test("within a hook none runs; all variables are set; what is no file is refused", async () => {
    using box = await created();
    writeHook(box, "pre-backup", "$VM_SNAPSHOT$VM_END$VM_PID.");
    await box.ok("backup");
    expect(hooked(box)).toEqual(["pre-backup ."]);
    box.environment.VM_HOOK = "post-backup";
    await box.ok("backup");
    expect(hooked(box)).toHaveLength(1);
    delete box.environment.VM_HOOK;
    box.write("on-start.hook/x", "");
    const { stderr } = await box.ok("run", "--detach");
    expect(stderr).toContain("on-start.hook: it is a directory");
    rmSync(box.path("pre-backup.hook"));
    Bun.spawnSync(["mkfifo", box.path("pre-backup.hook")]);
    await box.ends(74, "backup", "pre-backup.hook: it is a named pipe");
  });
});
