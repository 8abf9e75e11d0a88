/**
 * How each command ends, and its last message, compared with what has really happened: observed from outside, in /proc, the
 * disks and the snapshot directory. Each command × each ending: done, refused, a child that is killed or
 * hangs, a signal, a full disk. In all cases: status 0 only if the work is done; otherwise one error, no message of
 * success, nothing half done, and no process left.
 *
 * By default runs a part of the table; ENDINGS=all runs it all, ENDINGS='restore|stop' rows with a matching title (a regular expression).
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { COMMANDS_WITH_STATUSES, exitStatusesOf } from "../../src/cli/exit-statuses.ts";
import { EndingsLab, errorsOf, type Catch, type StateName } from "./endings-lab.ts";
import { canMount } from "./faults-sweeps.ts";
import { until, type Result, type Running } from "./harness.ts";
import { suite } from "./tools.ts";

interface Row {
  command: string;
  args: readonly string[];
  /** The initial state. */
  from: StateName;
  /** A guest runs at first. */
  running?: true;
  /** Needs a rescue. */
  rescue?: true;
  /** Its last message on success, which it must not print otherwise. */
  said: RegExp;
  /** Prints nothing on success. */
  silent?: true;
  /** Is the work done, observed from outside? */
  done: (lab: EndingsLab) => boolean | Promise<boolean>;
  ends: readonly End[];
}

interface End {
  how: string;
  status: number;
  /** Runs in the sample, too. */
  sample?: true;
  /** Arguments instead of the row's. */
  args?: readonly string[];
  /** A small filesystem over this directory, from the start, which `fill` fills. */
  disk?: "vm1" | "tmp";
  /** Before the command is started; disposed of after its end. */
  before?: (lab: EndingsLab) => unknown;
  /** Effect on its first such child. A child that hangs is followed by SIGTERM to the command. */
  child?: Catch;
  /** While it runs. */
  during?: (lab: EndingsLab, command: Running, qemu: number) => Promise<void>;
  /** It may end after the change: its message then. */
  error?: RegExp;
  /** Its message despite a failure, or instead of the row's. */
  said?: RegExp;
  /** Processes that remain. */
  leaves?: true;
  /** The part of the state that it changes nevertheless. */
  changes?: (lab: EndingsLab) => boolean;
}

const removeClone = (lab: EndingsLab): void =>
  rmSync(join(lab.box.top, "web"), { recursive: true, force: true });

const removeExport = (lab: EndingsLab): void => rmSync(join(lab.box.top, "web.vm"), { force: true });

async function makeExport(lab: EndingsLab): Promise<void> {
  removeClone(lab);
  rmSync(join(lab.box.top, "in.vm"), { force: true });
  await lab.box.ok(["export", "S0", "-o", "../in.vm"]);
}

/** Commands that change nothing: what they say cannot be wrong about it. */
const PRINTERS = ["completion", "config", "doctor", "events", "list", "man", "self-check", "status", "top"];

const has = (lab: EndingsLab, ...names: string[]): boolean =>
  names.every((name) => existsSync(lab.box.path(name)));
const lines = (text: string): string[] => text.split("\n").filter((line) => line.trim() !== "");

const killed = (child: string, pattern?: string, sample?: true): End => ({
  how: `${child}${pattern ? ` (${pattern})` : ""} killed`,
  status: 74,
  child: { child, action: "KILL", ...(pattern && { pattern }) },
  ...(sample && { sample }),
});

const hung = (child: string, pattern?: string, sample?: true): End => ({
  how: `${child}${pattern ? ` (${pattern})` : ""} hangs, SIGTERM`,
  status: 143,
  child: { child, action: "STOP", ...(pattern && { pattern }) },
  ...(sample && { sample }),
});

const full = (place: "vm1" | "tmp" | "out" | "repository", room: string, more: Partial<End> = {}): End => ({
  how: `no space in ${place}`,
  status: 73,
  before: (lab) => lab.mount(place, room),
  ...more,
});

/** Waits until the guest of a command in the foreground runs. @returns its qemu */
async function guestOf(lab: EndingsLab): Promise<number> {
  await until("the guest", () => has(lab, ".work/console.log") && lab.box.console().includes("HANGING"));
  return JSON.parse((await lab.box.ok(["status", "--json"])).stdout).pid as number;
}

const newSnapshot = async (lab: EndingsLab, name: string): Promise<boolean> =>
  has(lab, `backups/${name}`) && lab.state(true).last === name && (await lab.isWhole(name));

/** A backup that takes long enough to be disturbed. */
const SLOW = ["backup", "--rate-limit=200K"];
const unfinished = (lab: EndingsLab): Promise<unknown> =>
  until(
    "the copy",
    () => Bun.spawnSync(["sh", "-c", `ls -d '${lab.box.path("backups")}'/.vm-partial-*/*`]).exitCode === 0,
  );

const setTo = (lab: EndingsLab, text: string): boolean => lab.box.read(".work/guest.env").includes(text);

const pushImage = (lab: EndingsLab): Promise<unknown> => lab.box.ok(["snapshots", "push", "Q0"]);

const TABLE: readonly Row[] = [
  {
    command: "set",
    args: ["set", "MEMORY=77M"],
    from: "off",
    said: /^MEMORY: .* -> 77M$/,
    done: (lab) => setTo(lab, 'MEMORY="77M"'),
    ends: [
      { how: "done", status: 0 },
      { how: "refused: no such value", status: 64, args: ["set", "MEMORY=much"] },
    ],
  },
  {
    command: "disk add",
    args: ["disk", "add", "VIRT=1M"],
    from: "off",
    said: /^added disk-1\.img /,
    done: (lab) => has(lab, ".work/disk-1.img") && setTo(lab, "VIRT=disk-1.img"),
    ends: [{ how: "done", status: 0 }, killed("qemu-img", "create", true), hung("qemu-img", "create")],
  },
  {
    command: "cd",
    args: ["cd", "HALT"],
    from: "off",
    said: /^inserted /,
    done: (lab) => setTo(lab, lab.haltIso),
    ends: [
      { how: "done", status: 0 },
      { how: "refused: no such CD", status: 66, args: ["cd", "none.iso"] },
    ],
  },
  {
    command: "nic",
    args: ["nic", "add"],
    from: "off",
    said: /^added network card 2/,
    done: (lab) => setTo(lab, "NETWORKS="),
    ends: [
      { how: "done", status: 0 },
      { how: "refused: no such card", status: 66, args: ["nic", "remove", "3"] },
    ],
  },
  {
    command: "forward",
    args: ["forward", "add", "tcp:127.0.0.1:4444-:22"],
    from: "off",
    said: /^forwards /,
    done: (lab) => setTo(lab, "4444"),
    ends: [
      { how: "done", status: 0 },
      { how: "refused: no such forward", status: 66, args: ["forward", "remove", "1"] },
    ],
  },
  {
    command: "sendkey",
    args: ["sendkey", "ret"],
    from: "off",
    running: true,
    said: /^sent /,
    silent: true,
    done: () => true,
    ends: [
      { how: "done", status: 0, leaves: true },
      { how: "refused: no such key", status: 64, args: ["sendkey", "nokey"], leaves: true },
    ],
  },
  {
    command: "create",
    args: ["create", "H"],
    from: "nothing",
    said: /^created H in /,
    done: (lab) => has(lab, ".work/disk-0.img", ".work/guest.env"),
    ends: [
      { how: "done", status: 0 },
      {
        how: "refused: there is one",
        status: 73,
        before: (lab) => lab.load("off"),
      },
      killed("qemu-img", "create", true),
      hung("qemu-img", "create"),
      full("tmp", "64"),
    ],
  },
  {
    command: "run",
    args: ["run"],
    from: "off",
    said: /^the guest shut down; its disks occupy /,
    done: (lab) => lab.box.console().includes("BOOTED FROM CD") && lab.processes().length === 0,
    ends: [
      { how: "done", status: 0, sample: true, args: ["run", "HALT"], changes: () => true },
      { how: "refused: no such CD", status: 66, args: ["run", "none.iso"] },
      killed("qemu-system-x86_64", "disk-0.img"),
      hung("qemu-system-x86_64", "disk-0.img", true),
      {
        how: "qemu killed",
        status: 74,
        sample: true,
        args: ["run", "HANG"],
        during: async (lab) => void process.kill(await guestOf(lab), "SIGKILL"),
        error: /did not shut down: qemu was killed by SIGKILL/,
      },
      {
        how: "qemu hangs, SIGTERM: ended after STOP_TIMEOUT",
        status: 143,
        args: ["run", "HANG"],
        during: async (lab, command) => {
          process.kill(await guestOf(lab), "SIGSTOP");
          command.kill("SIGTERM");
        },
        error: /terminated by SIGTERM: (qemu was killed by SIGKILL|guest killed: it did not power off)/,
      },
      {
        how: "one Ctrl-C, a guest without ACPI: ended after STOP_TIMEOUT",
        status: 130,
        sample: true,
        args: ["run", "HANG"],
        during: async (lab, command) => {
          await guestOf(lab);
          command.kill("SIGINT");
        },
        error: /terminated by SIGINT: guest killed: it did not power off within 1 s/,
      },
      full("tmp", "0"),
    ],
  },
  {
    command: "stop",
    args: ["stop", "--timeout=1"],
    from: "off",
    running: true,
    said: /^(the guest shut down|guest killed)/,
    done: (lab) => lab.processes().length === 0,
    ends: [
      {
        how: "the guest does not power off",
        status: 124,
        sample: true,
        error: /did not power off within 1 seconds\n {2}raise --timeout; the guest was killed/,
        changes: (lab) => lab.processes().length === 0,
      },
      {
        how: "done: --force",
        status: 0,
        args: ["stop", "--force"],
        said: /^guest killed; its disks are crash-consistent$/,
      },
      {
        how: "done: --force, qemu hangs",
        status: 0,
        args: ["stop", "--force"],
        before: async (lab) => process.kill(await pidOf(lab), "SIGSTOP"),
        said: /^guest killed; its disks are crash-consistent$/,
      },
      {
        how: "qemu hangs",
        status: 124,
        before: async (lab) => process.kill(await pidOf(lab), "SIGSTOP"),
        changes: (lab) => lab.processes().length === 0,
      },
      {
        how: "qemu killed meanwhile",
        status: 74,
        args: ["stop"],
        during: async (lab, command, qemu) => {
          await lab.listens(command);
          process.kill(qemu, "SIGKILL");
        },
        error: /did not shut down: qemu was killed/,
      },
      {
        how: "qemu was killed before",
        status: 74,
        sample: true,
        before: async (lab) => {
          process.kill(await pidOf(lab), "SIGKILL");
          await until("its end", () => lab.processes().length === 0);
        },
        error: /did not shut down: qemu was killed/,
      },
      {
        how: "done: --force, qemu was killed before",
        status: 0,
        args: ["stop", "--force"],
        before: async (lab) => {
          process.kill(await pidOf(lab), "SIGKILL");
          await until("its end", () => lab.processes().length === 0);
        },
        said: /is not running: qemu was killed$/,
      },
      {
        how: "SIGTERM: the guest runs on",
        status: 143,
        args: ["stop"],
        leaves: true,
        during: async (lab, command) => {
          await lab.listens(command);
          command.kill("SIGTERM");
        },
      },
      {
        how: "no space to record how it ended",
        disk: "tmp",
        before: (lab) => lab.fill("tmp"),
        status: 124,
        sample: true,
        error: /warning: .*cannot be recorded[^]*did not power off within/,
        changes: (lab) => lab.processes().length === 0,
      },
    ],
  },
  {
    command: "backup (gz)",
    args: ["backup"],
    from: "off",
    said: /^snapshot S2: /,
    done: (lab) => newSnapshot(lab, "S2"),
    ends: [
      { how: "done", status: 0, sample: true },
      { how: "refused: the name is taken", status: 73, args: ["backup", "S0"] },
      killed("pigz", undefined, true),
      hung("pigz", undefined, true),
      killed("qemu-img", "check"),
      hung("qemu-img", "check"),
      { ...killed("openssl", "dgst"), how: "openssl killed: sha256sum instead", status: 0 },
      full("vm1", "1024", { sample: true }),
    ],
  },
  {
    command: "backup (qcow2)",
    args: ["backup"],
    from: "images",
    said: /^snapshot S0: /,
    done: (lab) => newSnapshot(lab, "S0"),
    ends: [
      { how: "done", status: 0 },
      killed("qemu-system-x86_64", "vm-blocks"),
      hung("qemu-system-x86_64", "vm-blocks"),
      {
        how: "qemu without a guest hangs in the copy, SIGTERM",
        status: 143,
        args: [...SLOW, "--format=qcow2"],
        during: async (lab, command) => {
          await unfinished(lab);
          await Bun.sleep(500);
          const line = lab.processes().find((text) => text.includes("vm-blocks"))!;
          process.kill(Number.parseInt(line, 10), "SIGSTOP");
          command.kill("SIGTERM");
        },
      },
      full("vm1", "512"),
    ],
  },
  {
    command: "backup of a running VM",
    args: ["backup"],
    from: "images",
    running: true,
    said: /^snapshot S0: /,
    done: (lab) => newSnapshot(lab, "S0"),
    ends: [
      { how: "done", status: 0, leaves: true },
      {
        how: "qemu killed meanwhile",
        status: 74,
        sample: true,
        args: [...SLOW, "--format=gz"],
        during: async (lab, _command, qemu) => {
          await unfinished(lab);
          process.kill(qemu, "SIGKILL");
        },
      },
      {
        how: "qemu hangs meanwhile, SIGTERM",
        status: 143,
        args: SLOW,
        leaves: true,
        during: async (lab, command, qemu) => {
          await unfinished(lab);
          await Bun.sleep(500);
          process.kill(qemu, "SIGSTOP");
          await Bun.sleep(1000);
          command.kill("SIGTERM");
        },
      },
      {
        how: "SIGTERM: the guest runs on",
        status: 143,
        args: SLOW,
        leaves: true,
        during: async (lab, command) => {
          await unfinished(lab);
          command.kill("SIGTERM");
        },
      },
      full("vm1", "512", { leaves: true }),
    ],
  },
  {
    command: "restore (gz)",
    args: ["restore", "S0"],
    from: "off",
    said: /^restored S0 to /,
    done: (lab) => has(lab, ".work/disk-0.img"),
    ends: [
      { how: "done", status: 0, changes: () => true },
      { how: "refused: no such snapshot", status: 66, args: ["restore", "S9"] },
      {
        how: "refused: it runs",
        status: 75,
        before: (lab) => lab.runDetached(),
        leaves: true,
      },
      killed("pigz", "-d", true),
      hung("pigz", "-d"),
      killed("dd"),
      full("tmp", "1024", { error: /no (room|space)/ }),
      {
        how: "a damaged snapshot",
        status: 74,
        before: (lab) => damage(lab, "S0/disk-0.img.gz"),
      },
    ],
  },
  {
    command: "restore --copy (qcow2)",
    args: ["restore", "--copy", "Q1"],
    from: "images",
    said: /^restored Q1 to /,
    done: (lab) => has(lab, ".work/disk-0.img"),
    ends: [
      { how: "done", status: 0, changes: () => true },
      killed("qemu-img", "convert", true),
      hung("qemu-img", "convert"),
      full("tmp", "1024"),
    ],
  },
  {
    command: "restore --from-remote --run",
    args: ["restore", "Q0", "--from-remote", "--run"],
    from: "images",
    said: / runs in the background \(pid \d+\)$/,
    done: async (lab) => JSON.parse((await lab.box.ok(["status", "--json"])).stdout).state === "running",
    ends: [
      { how: "done", status: 0, before: pushImage, leaves: true, changes: () => true },
      {
        how: "refused: no such snapshot",
        status: 66,
        before: pushImage,
        args: ["restore", "Q9", "--from-remote", "--run"],
      },
      { ...killed("restic", "mount", true), before: pushImage },
      { ...hung("restic", "mount"), before: pushImage },
      { ...killed("qemu-img", "create"), before: pushImage },
    ],
  },
  {
    command: "destroy",
    args: ["destroy"],
    from: "off",
    said: /^destroyed the working files in /,
    done: (lab) => !has(lab, ".work"),
    ends: [
      { how: "done", status: 0, changes: () => true },
      {
        how: "refused: it runs",
        status: 75,
        before: (lab) => lab.runDetached(),
        leaves: true,
      },
      {
        how: "done: --force, qemu hangs",
        status: 0,
        args: ["destroy", "--force"],
        before: async (lab) => process.kill(await lab.runDetached(), "SIGSTOP"),
        changes: (lab) => lab.processes().length === 0,
      },
      { ...full("tmp", "0"), how: "done: no space", status: 0, changes: () => true },
    ],
  },
  {
    command: "prune",
    args: ["prune", "--keep-last=1"],
    from: "off",
    said: /^removed 1 of 2 snapshots/,
    done: (lab) => !has(lab, "backups/S0") && has(lab, "backups/S1"),
    ends: [
      { how: "done", status: 0, sample: true },
      { how: "refused: no rule", status: 64, args: ["prune"] },
    ],
  },
  {
    command: "snapshots rm --merge",
    args: ["snapshots", "rm", "--merge", "Q1"],
    from: "images",
    said: /^removed Q1: /,
    done: async (lab) => !has(lab, "backups/Q1") && (await lab.isWhole("Q2")),
    ends: [
      { how: "done", status: 0 },
      { how: "refused: protected", status: 75, before: (lab) => lab.box.ok(["snapshots", "protect", "Q1"]) },
      killed("qemu-img", "convert", true),
      hung("qemu-img", "convert"),
      full("vm1", "1024"),
    ],
  },
  {
    command: "verify --deep",
    args: ["verify", "--deep", "S0"],
    from: "off",
    said: /^S0: (good|intact)|^S0 +(good|intact)/,
    done: () => true,
    ends: [
      { how: "done", status: 0 },
      { how: "refused: no such snapshot", status: 66, args: ["verify", "S9"] },
      {
        how: "a damaged snapshot",
        status: 74,
        sample: true,
        before: (lab) => damage(lab, "S0/disk-0.img.gz"),
      },
      killed("pigz"),
      hung("pigz"),
    ],
  },
  {
    command: "snapshots push",
    args: ["snapshots", "push", "Q0"],
    from: "images",
    said: /^Q0 is in the repository: /,
    done: async (lab) => (await lab.box.ok(["snapshots", "--remote", "--json"])).stdout.includes('"Q0"'),
    ends: [
      { how: "done", status: 0 },
      { how: "refused: no such snapshot", status: 66, args: ["snapshots", "push", "Q9"] },
      killed("restic", "backup", true),
      hung("restic", "backup"),
      full("repository", "1024"),
      // restic's lock takes some, too.
      full("repository", "0", { how: "no space at all in repository", sample: true }),
    ],
  },
  {
    command: "ssh",
    args: ["ssh", "true"],
    from: "off",
    running: true,
    said: /^never$/,
    done: () => false,
    ends: [
      { ...killed("ssh"), status: 137, leaves: true },
      { ...hung("ssh"), leaves: true },
      { how: "refused: it does not run", status: 66, before: (lab) => lab.load("off") },
    ],
  },
  {
    command: "cp",
    args: ["cp", "vm.txt", ":/tmp/"],
    from: "off",
    running: true,
    said: /^never$/,
    done: () => false,
    ends: [
      { ...killed("scp"), status: 137, leaves: true },
      { ...hung("scp"), leaves: true },
    ],
  },
  {
    command: "job",
    args: ["job", "short"],
    from: "off",
    rescue: true,
    said: /^the job short succeeded/,
    done: (lab) => has(lab, ".work/.out/FINISHED") && lab.box.read(".work/.out/STATUS") === "0\n",
    ends: [
      { how: "done", status: 0 },
      { how: "the job fails", status: 3, args: ["job", "failing"] },
      { how: "refused: no such job", status: 66, args: ["job", "none"] },
      { how: "its time limit", status: 124, args: ["-t", "1", "job", "long"] },
      {
        how: "the rescue's qemu killed",
        status: 74,
        args: ["job", "long"],
        during: async (lab) => void process.kill(await rescueOf(lab), "SIGKILL"),
      },
      {
        how: "the rescue's qemu hangs, SIGTERM",
        status: 143,
        args: ["job", "long"],
        during: async (lab, command) => {
          process.kill(await rescueOf(lab), "SIGSTOP");
          command.kill("SIGTERM");
        },
      },
      {
        how: "SIGINT",
        status: 130,
        args: ["job", "long"],
        during: async (lab, command) => {
          await rescueOf(lab);
          command.kill("SIGINT");
        },
      },
      { ...hung("bash", "hooked.pre"), args: ["job", "hooked"] },
      { ...killed("bash", "hooked.pre"), status: 1, args: ["job", "hooked"] },
      full("tmp", "0"),
    ],
  },
  {
    command: "rescue build",
    args: ["rescue", "build", "--name=rescue-new"],
    from: "nothing",
    said: /^the rescue rescue-new is in /,
    done: async (lab) => /^rescue-new .* usable /m.test((await lab.box.ok(["rescue", "list"])).stdout),
    ends: [
      { how: "done", status: 0 },
      killed("chmod", "u=rwX"),
      hung("chmod", "u=rwX"),
      { ...killed("cp", "vmlinuz") },
    ],
  },
  {
    command: "screenshot",
    args: ["screenshot", "../out/screen.png"],
    from: "off",
    running: true,
    said: /screen\.png$/,
    done: (lab) => statSync(join(lab.box.top, "out/screen.png")).size > 0,
    ends: [
      { how: "done", status: 0, leaves: true },
      full("out", "64", {
        leaves: true,
        before: (lab) => mountFull(lab, "out"),
      }),
      {
        how: "qemu hangs, SIGTERM",
        status: 143,
        sample: true,
        before: async (lab) => process.kill(await pidOf(lab), "SIGSTOP"),
        during: async (lab, command) => {
          await lab.listens(command);
          command.kill("SIGTERM");
        },
        leaves: true,
      },
      {
        how: "qemu hangs",
        status: 75,
        before: async (lab) => process.kill(await pidOf(lab), "SIGSTOP"),
        leaves: true,
      },
    ],
  },
  {
    command: "restart",
    args: ["restart", "--force"],
    from: "off",
    running: true,
    said: /^G runs in the background \(pid \d+\)$/,
    done: (lab) => lab.processes().some((line) => line.includes("disk-0.img")),
    ends: [
      { how: "done: --force", status: 0, leaves: true },
      {
        how: "done: --force, qemu hangs",
        status: 0,
        leaves: true,
        before: async (lab) => process.kill(await pidOf(lab), "SIGSTOP"),
      },
      {
        how: "the guest does not power off",
        status: 124,
        args: ["restart", "--timeout=1"],
        error: /start the VM again: vm restart/,
      },
      killed("qemu-system-x86_64", "disk-0.img"),
      hung("qemu-system-x86_64", "disk-0.img"),
      {
        how: "SIGTERM: the guest runs on",
        status: 143,
        args: ["restart", "--timeout=60"],
        leaves: true,
        during: async (lab, command) => {
          await lab.listens(command);
          command.kill("SIGTERM");
        },
      },
    ],
  },
  {
    command: "pause",
    args: ["pause"],
    from: "off",
    running: true,
    said: /^guest paused$/,
    done: async (lab) => (await stateOf(lab)) === "paused",
    ends: [
      { how: "done", status: 0, leaves: true },
      { how: "refused: it does not run", status: 66, before: (lab) => lab.load("off") },
      ...hangsQemu(),
    ],
  },
  {
    command: "resume",
    args: ["resume"],
    from: "off",
    running: true,
    said: /^guest resumed$/,
    done: async (lab) => (await stateOf(lab)) === "running",
    ends: [
      { how: "done", status: 0, leaves: true, before: (lab) => lab.box.ok(["pause"]) },
      { how: "refused: it does not run", status: 66, before: (lab) => lab.load("off") },
      ...hangsQemu(),
    ],
  },
  {
    command: "exec",
    args: ["exec", "true"],
    from: "off",
    running: true,
    said: /^never$/,
    done: () => false,
    ends: [
      { how: "no agent listens", status: 69, leaves: true },
      { how: "refused: it does not run", status: 66, before: (lab) => lab.load("off") },
    ],
  },
  {
    command: "console",
    args: ["console"],
    from: "off",
    running: true,
    said: /^never$/,
    done: () => false,
    ends: [
      {
        how: "SIGTERM",
        status: 143,
        leaves: true,
        during: async (lab, command) => {
          await lab.listens(command);
          command.kill("SIGTERM");
        },
      },
      { how: "refused: it does not run", status: 66, before: (lab) => lab.load("off") },
    ],
  },
  {
    command: "view",
    args: ["view"],
    from: "off",
    running: true,
    said: /^never$/,
    done: () => false,
    ends: [
      { how: "refused: it has no display", status: 69, leaves: true },
      { how: "refused: it does not run", status: 66, before: (lab) => lab.load("off") },
    ],
  },
  {
    command: "adopt",
    args: ["adopt"],
    from: "off",
    said: /^adopted /,
    done: (lab) => has(lab, ".work/disk-0.img", ".work/.vm.json"),
    ends: [
      { how: "done", status: 0, before: unmark },
      { how: "nothing to take over", status: 0, said: /./ },
      { how: "refused: nothing is there", status: 66, before: (lab) => lab.load("nothing") },
      full("tmp", "0", {
        before: (lab) => {
          unmark(lab);
          return mountFull(lab, "tmp");
        },
      }),
    ],
  },
  {
    command: "suspend",
    args: ["suspend"],
    from: "off",
    running: true,
    said: /^suspended: .* of RAM saved, .* s; resume: .*vm run$/,
    done: async (lab) => (await stateOf(lab)) === "suspended",
    ends: [
      { how: "done", status: 0 },
      { how: "refused: it does not run", status: 66, before: (lab) => lab.load("off") },
    ],
  },
  {
    command: "clone",
    args: ["clone", "--keep-guest", "../web"],
    from: "off",
    said: /^cloned /,
    done: (lab) => existsSync(join(lab.box.top, "web/.work/guest.env")),
    ends: [
      { how: "done", status: 0, before: removeClone },
      { how: "refused: no such snapshot", status: 66, args: ["clone", "S9", "../web"], before: removeClone },
      {
        how: "refused: the directory is not empty",
        status: 73,
        args: ["clone", "../tmp/.."],
        before: removeClone,
      },
    ],
  },
  {
    command: "export",
    args: ["export", "S0", "-o", "../web.vm"],
    from: "off",
    said: /^exported S0 /,
    done: (lab) => existsSync(join(lab.box.top, "web.vm")),
    ends: [
      { how: "done", status: 0, before: removeExport },
      {
        how: "refused: no such snapshot",
        status: 66,
        args: ["export", "S9", "-o", "../web.vm"],
        before: removeExport,
      },
      {
        how: "refused: the file exists",
        status: 73,
        args: ["export", "S0", "-o", "../tmp/../tmp"],
        before: removeExport,
      },
    ],
  },
  {
    command: "import",
    args: ["import", "../in.vm", "../web"],
    from: "off",
    said: /^imported /,
    done: (lab) => existsSync(join(lab.box.top, "web/.work/guest.env")),
    ends: [
      { how: "done", status: 0, before: makeExport },
      {
        how: "refused: no such file",
        status: 66,
        args: ["import", "../none.vm", "../web"],
        before: makeExport,
      },
      {
        how: "refused: the directory is not empty",
        status: 73,
        args: ["import", "../in.vm", "../tmp/.."],
        before: makeExport,
      },
    ],
  },
  {
    command: "rename",
    args: ["rename", "other"],
    from: "off",
    said: /^renamed /,
    done: (lab) => existsSync(join(lab.box.top, "other")),
    ends: [{ how: "refused: the name is taken", status: 73, args: ["rename", "../tmp"] }],
  },
  {
    command: "identity --new",
    args: ["identity", "--new"],
    from: "off",
    said: /^former [-0-9a-f]{36}$/,
    done: async (lab) => (await lab.box.ok(["identity"])).stdout !== lab.uuid,
    ends: [{ how: "done", status: 0 }, full("vm1", "0", { before: (lab) => mountFull(lab, "vm1") })],
  },
  {
    command: "snapshots describe",
    args: ["snapshots", "describe", "S0", "a word"],
    from: "off",
    said: /^never$/,
    silent: true,
    done: (lab) => lab.box.read("backups/S0/DESCRIPTION") === "a word\n",
    ends: [
      { how: "done", status: 0 },
      { how: "refused: no such snapshot", status: 66, args: ["snapshots", "describe", "S9", "a word"] },
      full("vm1", "0", { before: (lab) => mountFull(lab, "vm1") }),
    ],
  },
  {
    command: "snapshots mount",
    args: ["snapshots", "mount", "S0", "."],
    from: "off",
    said: / is mounted read-only on /,
    done: () => false,
    ends: [
      { how: "refused: DIR is not empty", status: 73 },
      { how: "refused: no such directory", status: 66, args: ["snapshots", "mount", "S0", "none"] },
    ],
  },
  {
    command: "move-work",
    args: ["move-work"],
    from: "off",
    said: /^moved the working files from /,
    done: (lab) => has(lab, "disk-0.img", ".vm.json"),
    ends: [
      { how: "done", status: 0, changes: () => true },
      { how: "refused: it is in the working files", status: 64, args: ["move-work", ".work/.in"] },
      { how: "refused: no such directory", status: 66, args: ["move-work", "../none"] },
      { how: "refused: it runs", status: 75, before: (lab) => lab.runDetached(), leaves: true },
    ],
  },
  {
    command: "autostart",
    args: ["autostart", "on", "--user"],
    from: "off",
    said: /is started with the host/,
    done: () => false,
    ends: [
      { how: "refused: nobody knows it", status: 64, args: ["autostart", "of"] },
      { how: "refused: a reboot empties the directory", status: 73 },
    ],
  },
  {
    command: "timer",
    args: ["timer", "--print"],
    from: "off",
    said: /^\[Timer\]$/,
    done: () => true,
    ends: [
      { how: "done", status: 0 },
      { how: "refused: it is nobody's", status: 64, args: ["timer", "nonsense"] },
    ],
  },
];

/** The work is refused by a qemu that does not answer, or ended by a signal. */
function hangsQemu(): End[] {
  return [
    {
      how: "qemu hangs",
      status: 75,
      leaves: true,
      before: stopQemu,
      error: /no QMP greeting on \/\S+\/qmp\.sock/,
    },
    {
      how: "qemu hangs, SIGTERM",
      status: 143,
      leaves: true,
      before: stopQemu,
      during: async (lab, command) => {
        await lab.listens(command);
        command.kill("SIGTERM");
      },
    },
  ];
}

async function stopQemu(lab: EndingsLab): Promise<void> {
  process.kill(await pidOf(lab), "SIGSTOP");
}

/** Mounts a filesystem over a directory, without free space. */
async function mountFull(lab: EndingsLab, place: "vm1" | "tmp" | "out"): Promise<AsyncDisposable> {
  const disk = await lab.mount(place, "64");
  await lab.fill(place);
  return disk;
}

/** Working files as the earlier program leaves them. */
function unmark(lab: EndingsLab): void {
  rmSync(join(lab.box.work, ".vm.json"));
}

async function stateOf(lab: EndingsLab): Promise<string> {
  return JSON.parse((await lab.box.ok(["status", "--json"])).stdout).state as string;
}

/** The process of a job's rescue, once it runs the job. */
async function rescueOf(lab: EndingsLab): Promise<number> {
  await until("the job", () => has(lab, ".work/.out/STARTED"));
  return Number.parseInt(
    lab.processes().find((line) => line.includes("rescue.log"))!,
    10,
  );
}

async function pidOf(lab: EndingsLab): Promise<number> {
  return JSON.parse((await lab.box.ok(["status", "--json"])).stdout).pid as number;
}

/** Changes a byte in the middle. */
function damage(lab: EndingsLab, name: string): void {
  const path = lab.box.path("backups", name);
  const bytes = readFileSync(path);
  bytes[bytes.length >> 1]! ^= 0xff;
  rmSync(path);
  writeFileSync(path, bytes, { mode: 0o600 });
}

const wanted = process.env.ENDINGS ?? "";
const mountable = canMount();
const CASES = TABLE.flatMap((row) =>
  row.ends
    .map((end) => ({ title: `${row.command}: ${end.how}: ${end.status}`, row, end }))
    .filter(({ title, end }) =>
      wanted === "" ? end.sample === true : wanted === "all" || new RegExp(wanted).test(title),
    ),
);

test.each(TABLE)("the help of $command lists each status of this table", ({ command, ends }) => {
  const listed = exitStatusesOf(command.split(" ")[0]!).map(([status]) => status);
  const numbers = ends.map(({ status }) => status).filter((status) => status < 128);
  const own = listed.includes("other");
  expect(numbers.filter((status) => !listed.includes(String(status)) && !(own && status < 64))).toEqual([]);
});

suite(
  "endings",
  () => {
    let lab: EndingsLab;
    beforeAll(async () => {
      lab = new EndingsLab();
      await lab.prepare();
    });
    afterAll(() => lab?.[Symbol.dispose]());

    test("the table has each command but those that only print", () => {
      const commands = new Set(TABLE.map(({ command }) => command.split(" ")[0]!));
      expect([...commands, ...PRINTERS].toSorted()).toEqual(COMMANDS_WITH_STATUSES.toSorted());
    });

    test.each(CASES.map((item) => [item.title, item] as const))("%s", async (_title, { row, end }) => {
      if (!mountable && end.how.includes("no space")) return;
      await lab.load(row.from);
      if (row.rescue) await lab.prepareJobs();
      await using _disk = end.disk && mountable ? await lab.mount(end.disk, "8192") : undefined;
      const qemu = row.running ? await lab.runDetached(["--ssh"]) : 0;
      const prepared = (await end.before?.(lab)) as Partial<AsyncDisposable> | undefined;
      try {
        expect(await judge(lab, row, end, qemu)).toEqual([]);
      } finally {
        await prepared?.[Symbol.asyncDispose]?.();
      }
    });

    test("killed (SIGKILL) while qemu starts: status shows a running guest, and stop ends it", async () => {
      await lab.load("off");
      lab.arm({ child: "qemu-system-x86_64", pattern: "disk-0.img", action: "STOP" });
      const command = lab.box.start(["run", "--detach", lab.hangIso]);
      const pid = await lab.caught(command);
      command.kill("SIGKILL");
      await command.done;
      process.kill(pid, "SIGCONT");
      const status = await until("qemu", async () => {
        const seen = JSON.parse((await lab.box.ok(["status", "--json"])).stdout);
        return seen.state === "running" && seen;
      });
      expect(status).toMatchObject({ job: false, pid });
      expect(typeof status.uptimeSeconds).toBe("number");
      const { stderr } = await lab.box.ok(["stop", "--force"]);
      expect(stderr).toContain("guest killed; its disks are crash-consistent");
      expect(lab.processes()).toEqual([]);
    });
  },
  ["restic", "ssh", "scp", "qemu-io"],
);

async function judge(lab: EndingsLab, row: Row, end: End, qemu: number): Promise<string[]> {
  const guest = row.running === true || row.rescue === true || end.leaves === true;
  const before = lab.state(guest);
  if (end.child) lab.arm(end.child);
  const args = (end.args ?? row.args).map((word) =>
    word === "HALT" ? lab.haltIso : word === "HANG" ? lab.hangIso : word,
  );
  const command = lab.box.start(args);
  if (end.child) {
    await lab.caught(command);
    if (end.child.action === "STOP") {
      await lab.listens(command);
      command.kill("SIGTERM");
    }
  }
  await end.during?.(lab, command, qemu);
  const result = await command.done;
  const wrong: string[] = [];
  const said = `${result.stdout}\n${result.stderr}`;
  if (result.status !== end.status)
    wrong.push(`status ${result.status ?? result.signal} instead of ${end.status}`);
  if (end.error && !end.error.test(result.stderr)) wrong.push(`it does not say ${end.error}`);
  await judgeProcesses(lab, end, wrong);
  if (result.status === 0) {
    if (!row.silent && !lines(said).some((line) => (end.said ?? row.said).test(line)))
      wrong.push(`it does not say ${row.said}`);
    if (!(await row.done(lab))) wrong.push("it says that it is done, but it is not");
  } else await judgeFailure(lab, row, end, result, before, guest, wrong);
  if (wrong.length > 0) wrong.push(said);
  return wrong;
}

async function judgeProcesses(lab: EndingsLab, end: End, wrong: string[]): Promise<void> {
  if (end.leaves) return;
  try {
    await until("the end of its processes", () => lab.processes().length === 0);
  } catch {
    wrong.push(`processes are left: ${lab.processes().join("; ")}`);
  }
}

async function judgeFailure(
  lab: EndingsLab,
  row: Row,
  end: End,
  result: Result,
  before: ReturnType<EndingsLab["state"]>,
  guest: boolean,
  wrong: string[],
): Promise<void> {
  const { stderr, stdout, status } = result;
  const errors = errorsOf(result);
  // ssh and scp print their own errors.
  if (status !== 137 && errors.length !== 1) wrong.push(`${errors.length} errors instead of one`);
  if (/internal error|^\s+at .*:\d+/m.test(stderr)) wrong.push("it shows its inside");
  if (lines(`${stdout}\n${stderr}`).some((line) => row.said.test(line)))
    wrong.push("it says that it is done");
  const after = lab.state(guest);
  if (end.changes && !end.changes(lab)) wrong.push("what it says is not so");
  if (JSON.stringify(after) !== JSON.stringify(before))
    wrong.push(`it failed, and has changed: ${difference(before, after)}`);
}

const difference = (before: object, after: object): string =>
  Object.keys(before)
    .map((key) => [key, JSON.stringify(before[key as never]), JSON.stringify(after[key as never])] as const)
    .filter(([, was, is]) => was !== is)
    .map((words) => words.join(" "))
    .join("; ");
