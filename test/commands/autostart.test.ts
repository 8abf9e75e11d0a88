/** `autostart`: units of systemd and a crontab, by programs that record their arguments; what these run. */
import { describe, expect, spyOn, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { CRONS } from "../../src/lib/cron.ts";
import { runsProcess } from "../../src/process/holders.ts";
import { findAutostart } from "../../src/vm/autostart.ts";
import * as systemd from "../../src/vm/systemd.ts";
import { readMark } from "../../src/store/mark.ts";
import { startNamed } from "../fixtures/processes.ts";
import { Sandbox } from "../fixtures/sandbox.ts";

/** A VM in a directory that a reboot does not empty, and a systemctl that enables and disables. */
async function lasting(...words: string[]): Promise<Sandbox> {
  const box = new Sandbox(undefined, mkdtempSync("/var/tmp/vm-unit-"));
  box.program(
    "systemctl",
    `echo "$@" >>'${box.top}/calls'
     units='${box.home}/.config/systemd/user'; wants=$units/default.target.wants
     case "$*" in
       *' enable '*) mkdir -p "$wants" && ln -sf "$units/$3" "$wants/$3" ;;
       *' disable '*) rm -f "$wants/$3" ;;
       *is-active*) cat '${box.top}/active' 2>/dev/null || echo inactive ;;
       *is-system-running*) echo running ;;
       *LoadState*) echo LoadState=loaded ;;
       *' show '*) for name; do case $name in *.service) printf 'Id=%s\\nActiveState=active\\nResult=success\\nNRestarts=2\\nMainPID=7\\n\\n' "$name" ;; esac; done ;;
       *' start '*) [ ! -e '${box.top}/refuses' ] ;;
     esac`,
  );
  await box.ok("create", "G", ...words);
  return box;
}

const calls = (box: Sandbox): string[] => readFileSync(join(box.top, "calls"), "utf8").trim().split("\n");
const unitsOf = (box: Sandbox): string => join(box.home, ".config/systemd/user");
const facts = (box: Sandbox) =>
  ({ prog: "vm", home: box.home, env: {} }) as Parameters<typeof findAutostart>[0];

/** The text of the VM's unit. */
function readUnit(box: Sandbox): string {
  const name = readdirSync(unitsOf(box)).find((file) => file.endsWith(".service"));
  return readFileSync(join(unitsOf(box), name!), "utf8");
}

/** What systemd sets for the commands of a unit. */
function asUnit(box: Sandbox): string {
  const directory = join(box.top, "runtime");
  mkdirSync(directory, { recursive: true });
  box.environment.RUNTIME_DIRECTORY = directory;
  return join(directory, "pid");
}

describe("on and off, with systemd:", () => {
  test("writes the unit, enables it, shows it, and removes it", async () => {
    using box = await lasting();
    expect((await box.json("status")).autostart).toBeNull();
    await box.ends(
      0,
      "autostart on --user --order=7 --delay=5 --restart --wait=agent --timeout=30",
      "started with the host",
    );
    const text = readUnit(box);
    for (const line of [
      "Type=forking",
      "PIDFile=%t/vm-autostart/%i/pid",
      "KillMode=process",
      "Restart=on-failure",
      "StartLimitIntervalSec=600",
      "StartLimitBurst=11",
      "TimeoutStopSec=90",
      "WantedBy=default.target",
    ])
      expect(text).toContain(`${line}\n`);
    expect(text).toMatch(/^ExecStart=".*" "-d" ".*\/vm1" "autostart" "start" "--delay=5" "--wait=agent"$/m);
    expect(text).toMatch(/^ExecStop=".*" "-d" ".*\/vm1" "autostart" "stop" "--timeout=30"$/m);
    const [unit = ""] = readdirSync(join(unitsOf(box), "default.target.wants"));
    expect(unit).toMatch(/^vm@var-tmp-vm\\x2dunit\\x2d\w+-vm1\.service$/);
    expect(calls(box)).toEqual(["--user daemon-reload", `--user enable ${unit}`]);
    const facets = { manager: "user", unit, order: 7, delaySeconds: 5, wait: "agent", restart: true };
    const state = { active: "active", result: "success", restarts: 2, mainPid: 7 };
    expect((await box.json("list"))[0].autostart).toEqual(facets);
    expect((await box.json("status")).autostart).toEqual({ ...facets, state });
    await box.ends(
      0,
      "status",
      "order 7, delay 5 s, wait for agent, restart after a crash; by the user's systemd: active, restarted 2 times",
    );
    expect(await box.json("autostart")).toEqual([{ directory: box.host, ...facets, state }]);
    await box.ends(0, "autostart", /^7 +\S+vm1 +systemd, user +5 s +agent +yes +active, restarted 2 times$/m);
    await box.ends(0, "destroy", "still started with the host");
    await box.ends(0, "autostart off", "no longer started");
    expect(readdirSync(unitsOf(box)).filter((name) => name.endsWith(".service"))).toEqual([]);
    await box.ends(66, "autostart off", "there is no VM");
  });

  test("units of VMs are ordered by each other, and follow a change", async () => {
    using box = await lasting();
    const second = join(box.top, "second");
    mkdirSync(second, { mode: 0o700 });
    await box.ok("-d", second, "create", "Second");
    await box.ok("autostart", "on", "--user", "--order=20");
    await box.ok("-d", second, "autostart", "on", "--user", "--order=10");
    const read = (directory: string): string => {
      const { unit } = findAutostart(facts(box), directory)!;
      return readFileSync(join(unitsOf(box), unit!), "utf8");
    };
    const nameOf = (directory: string): string => findAutostart(facts(box), directory)!.unit!;
    expect(read(box.host)).toContain(`After=${nameOf(second)}\n`);
    expect(read(second)).not.toContain("After=");
    await box.ok("-d", second, "autostart", "on", "--user", "--order=30");
    expect(read(box.host)).not.toContain("After=");
    expect(read(second)).toContain(`After=${nameOf(box.host)}\n`);
    await box.ok("autostart", "off");
    expect(read(second)).not.toContain("After=");
  });

  test("follows a rename, and is turned off for a directory that is gone", async () => {
    using box = await lasting();
    await box.ok("autostart", "on", "--user", "--restart");
    await box.ends(0, "rename other", /vm@.*vm1\.service is vm@.*other\.service now/);
    const other = join(box.top, "other");
    expect(findAutostart(facts(box), box.host)).toBeUndefined();
    expect(findAutostart(facts(box), other)).toMatchObject({
      plan: { directory: other, guest: "other", restart: true },
    });
    expect(readUnit(box)).toContain(`"${other}" "autostart" "start"`);
    rmSync(other, { recursive: true });
    mkdirSync(box.host);
    await box.ends(0, "autostart", "no such directory");
    await box.ends(0, ["autostart", "off", other], "no longer started");
    expect(findAutostart(facts(box), other)).toBeUndefined();
  });

  test("off keeps the unit of a VM that runs under it", async () => {
    using box = await lasting();
    await box.ok("autostart", "on", "--user");
    writeFileSync(join(box.top, "active"), "active\n");
    await box.ends(0, "autostart off", "stays under systemd until it is off");
    expect(readUnit(box)).toContain("ExecStop=");
    expect(findAutostart(facts(box), box.host)).toBeUndefined();
  });

  test.each<[what: string, change: (box: Sandbox, unit: string) => void]>([
    [
      "that an interrupted command left",
      (box, unit) => rmSync(join(unitsOf(box), "default.target.wants", unit)),
    ],
    [
      "whose plan was damaged by hand",
      (box, unit) => {
        const path = join(unitsOf(box), unit);
        writeFileSync(path, readFileSync(path, "utf8").replace('"order"', '"orde"'));
      },
    ],
  ])("off removes a unit %s", async (_what, change) => {
    using box = await lasting();
    await box.ok("autostart", "on", "--user");
    const { unit } = findAutostart(facts(box), box.host)!;
    change(box, unit!);
    expect(findAutostart(facts(box), box.host)).toBeUndefined();
    await box.ends(0, "autostart off", `removed ${unit}`);
    expect(existsSync(join(unitsOf(box), unit!))).toBe(false);
    await box.ends(0, "autostart off", "is not started with the host");
  });

  test("off takes a symlink to the directory", async () => {
    using box = await lasting();
    await box.ok("autostart", "on", "--user");
    const link = join(box.top, "link");
    symlinkSync(box.host, link);
    await box.ends(0, ["autostart", "off", link], "no longer started");
  });

  test("follows the working files to another directory, and names a program that is gone", async () => {
    using box = await lasting();
    await box.ok("autostart", "on", "--user", "--order=7");
    const place = join(box.top, "place");
    mkdirSync(place);
    await box.ok("move-work", place);
    expect(findAutostart(facts(box), box.host)!.plan).toMatchObject({ working: place, order: 7 });
    await box.ok("move-work");
    expect(findAutostart(facts(box), box.host)!.plan.working).toBe(box.host);
    const path = join(unitsOf(box), findAutostart(facts(box), box.host)!.unit!);
    const { program } = findAutostart(facts(box), box.host)!.plan;
    writeFileSync(path, readFileSync(path, "utf8").replaceAll(program, "/gone/vm"));
    await box.ends(0, "autostart", "no such program: /gone/vm");
    await box.ends(0, "run --detach", "its unit starts /gone/vm", "vm autostart on --order=7 --timeout=60");
  });

  test("the user's systemd is not there: 69 with the way to start it, no unit is left", async () => {
    using box = await lasting();
    box.program("systemctl", "echo 'Failed to connect to bus: No medium found' >&2; exit 1");
    const running = [spyOn(systemd, "isSystemdRunning"), spyOn(systemd, "isUserManagerRunning")] as const;
    try {
      running[0].mockReturnValue(true);
      running[1].mockReturnValue(false);
      await box.ends(69, "autostart on --user", "your systemd is not running", "loginctl enable-linger");
      running[1].mockReturnValue(true);
      await box.ends(74, "autostart on --user", "No medium found");
    } finally {
      for (const spy of running) spy.mockRestore();
    }
    expect(readdirSync(unitsOf(box))).toEqual([]);
  });

  test("a systemd that refuses: no unit is left", async () => {
    using box = await lasting();
    box.program("systemctl", "exit 1");
    const { status } = await box.vm("autostart", "on", "--user");
    expect([69, 74]).toContain(status);
    expect(readdirSync(unitsOf(box))).toEqual([]);
  });
});

test.each<[line: string, status: number, printed: string]>([
  ["autostart maybe", 64, "on"],
  ["autostart off --order=1", 64, "--order is for on"],
  ["autostart list --restart", 64, "--restart is for on"],
  ["autostart on --user --cron", 64, "cannot be combined"],
  ["autostart on --order=1000", 64, "0 to 999"],
  ["autostart on --delay=soon", 64, "--delay"],
  ["autostart on --wait=net", 64, "ssh or agent"],
  ["autostart on vm1", 64, "takes no directory"],
])("%s → %i", async (line, status, printed) => {
  using box = new Sandbox();
  await box.ends(status, line, printed);
});

test("--wait=ssh needs a forward to the guest's SSH: 69", async () => {
  using box = await lasting();
  await box.ends(69, "autostart on --user --wait=ssh", "vm forward add");
  await box.ok("forward", "add", "tcp:127.0.0.1:2222-:22");
  await box.ok("autostart", "on", "--user", "--wait=ssh");
  expect(readUnit(box)).toContain(`"autostart" "start" "--wait=ssh"`);
});

describe("refuses a VM that would not survive a reboot:", () => {
  test("working files in memory, until move-work", async () => {
    using box = await lasting();
    const memory = mkdtempSync("/dev/shm/vm-unit-");
    try {
      await box.ok("move-work", memory);
      await box.ends(
        73,
        "autostart on --user --order=7 --restart",
        `a reboot empties ${memory}`,
        "vm move-work && vm autostart on --user --order=7 --restart\n",
      );
      await box.ok("move-work");
      await box.ok("autostart", "on", "--user");
    } finally {
      rmSync(memory, { recursive: true });
    }
  });

  test("the VM itself in memory, without working files, or a template", async () => {
    using box = new Sandbox(undefined, mkdtempSync("/dev/shm/vm-unit-"));
    await box.ends(66, "autostart on --user", "there is no VM");
    await box.ok("create", "G");
    await box.ends(73, "autostart on --user", "a reboot empties");
    using kept = await lasting();
    await kept.ok("backup");
    await kept.ok("destroy");
    await kept.ends(66, "autostart on --user", "vm restore");
    await kept.ok("restore");
    await kept.ok("set", "TEMPLATE=yes");
    await kept.ends(75, "autostart on --user", "template");
  });
});

describe("what systemd runs:", () => {
  test("start writes the pid, stop shuts the guest down", async () => {
    using box = await lasting();
    const pidFile = asUnit(box);
    await box.ok("autostart", "start");
    expect(readFileSync(pidFile, "utf8")).toBe(`${(await box.json("status")).pid}\n`);
    await box.ends(75, "autostart start", "the VM is running");
    await box.ends(0, "autostart stop", "the guest shut down");
    expect([existsSync(pidFile), readMark(box.work)!.lastRun]).toEqual([false, "powered-off"]);
    // ExecStopPost=
    await box.ok("autostart", "stop");
  });

  test.each<[how: string, end: (box: Sandbox) => unknown, status: number]>([
    ["a guest that powered off", (box) => box.qemus.at(-1)!.powerOff(), 0],
    ["vm stop", (box) => box.ok("stop"), 0],
    ["vm stop --force", (box) => box.ok("stop", "--force"), 0],
    ["a killed qemu", (box) => box.qemus.at(-1)!.end(undefined, 1), 74],
  ])("stop after %s", async (_how, end, status) => {
    using box = await lasting();
    const pidFile = asUnit(box);
    await box.ok("autostart", "start");
    await end(box);
    await box.ends(status, "autostart stop --timeout=5");
    expect(existsSync(pidFile)).toBe(false);
  });

  test("stop leaves a run by hand alone that began after the unit's own", async () => {
    using box = await lasting();
    const pidFile = asUnit(box);
    await box.ok("autostart", "start");
    writeFileSync(pidFile, "4194999\n");
    await box.ok("autostart", "stop");
    expect((await box.json("status")).state).toBe("running");
  });

  test("start does not restore a snapshot in place of lost working files", async () => {
    using box = await lasting();
    await box.ok("backup");
    rmSync(box.work, { recursive: true });
    await box.ends(66, "autostart start", "vm restore");
    expect(box.qemus).toEqual([]);
  });
});

describe("run and restart of a VM that is started with the host:", () => {
  test("have systemd start it", async () => {
    using box = await lasting();
    await box.ok("autostart", "on", "--user");
    await box.ends(0, "run --detach", "under systemd");
    const { unit } = findAutostart(facts(box), box.host)!;
    expect(calls(box).slice(-2)).toEqual([`--user reset-failed ${unit}`, `--user start ${unit}`]);
    await box.ends(0, "restart", "under systemd");
    writeFileSync(join(box.top, "refuses"), "");
    await box.ends(74, "run --detach", `${unit} failed`, "journalctl --user -e -u");
    expect(box.qemus).toEqual([]);
  });

  test.each([["-m 65M run --detach"], ["run --detach --ssh"], ["run --detach"]])(
    "but not: %s",
    async (line) => {
      using box = await lasting();
      await box.ok("autostart", "on", "--user");
      if (line === "run --detach") box.program("systemctl", "exit 1");
      await box.ends(0, line, "systemd does not watch this run");
      expect(box.qemus).toHaveLength(1);
      const { autostart } = await box.json("status");
      expect(autostart.watched).toBe(line === "run --detach" ? undefined : false);
    },
  );
});

const withCrontab = async (): Promise<Sandbox> => {
  const box = await lasting();
  box.program(
    "crontab",
    `case $1 in -l) cat '${box.top}/crontab' 2>/dev/null ;; -) cat >'${box.top}/new' && mv '${box.top}/new' '${box.top}/crontab' ;; esac`,
  );
  writeFileSync(join(box.top, "crontab"), "0 3 * * * true\n");
  return box;
};

describe("cron:", () => {
  test("one line for all VMs, which start-all starts in their order; other lines stay", async () => {
    using box = await withCrontab();
    const second = join(box.top, "second");
    mkdirSync(second, { mode: 0o700 });
    await box.ok("-d", second, "create", "Second");
    await box.ends(0, "autostart on --cron --order=2", "by cron", "nothing shuts the guest down");
    await box.ok("-d", second, "autostart", "on", "--cron", "--order=1");
    const lines = readFileSync(join(box.top, "crontab"), "utf8").trimEnd().split("\n");
    expect(lines).toEqual([
      "0 3 * * * true",
      // cron's own HOME may be another than that of sudo, where the record is.
      expect.stringMatching(
        new RegExp(
          String.raw`^@reboot HOME=${RegExp.escape(box.home)} \S+ autostart start-all # autostart of vm$`,
        ),
      ),
    ]);
    expect((await box.json("status")).autostart).toMatchObject({ manager: "cron", order: 2, unit: null });
    const { stderr } = await box.ok("autostart", "start-all");
    expect([stderr.indexOf("Second runs in"), stderr.indexOf("G runs in")].map((at) => at > 0)).toEqual([
      true,
      true,
    ]);
    expect(stderr.indexOf("Second runs in")).toBeLessThan(stderr.indexOf("G runs in"));
    await box.ok("stop");
    await box.ends(0, "autostart start-all", `${second}: runs already`, "G runs in");
    // One that cannot be started does not keep the others from it.
    await box.ok("stop");
    await box.ok("-d", second, "stop");
    const work = readlinkSync(join(second, ".work"));
    unlinkSync(join(second, ".work"));
    await box.ends(74, "autostart start-all", "1 of 2 VMs were not started", `${second}: `, "G runs in");
    symlinkSync(work, join(second, ".work"));
    await box.ok("-d", second, "autostart", "off");
    await box.ok("autostart", "off");
    expect(readFileSync(join(box.top, "crontab"), "utf8")).toBe("0 3 * * * true\n");
    expect(existsSync(join(box.home, ".config/vm.autostart.json"))).toBe(false);
  });

  test("a warning if no cron is running", async () => {
    using box = await withCrontab();
    const crond = join(box.top, "crond");
    copyFileSync(Bun.which("sleep")!, crond);
    chmodSync(crond, 0o700);
    const daemon = await startNamed(crond, ["60"]);
    try {
      expect((await box.ok("autostart", "on", "--cron")).stderr).not.toContain("no cron is running");
    } finally {
      daemon.kill("SIGKILL");
      await daemon.exited;
    }
    const { stderr } = await box.ok("autostart", "on", "--cron");
    expect(stderr.includes("no cron is running")).toBe(!runsProcess(CRONS));
  });

  test("lines of the user stay as they are; a crontab that cannot be read is not replaced", async () => {
    using box = await withCrontab();
    const own = "# mine\n\n0 3 * * * true\n";
    writeFileSync(join(box.top, "crontab"), own);
    await box.ok("autostart", "on", "--cron");
    expect(readFileSync(join(box.top, "crontab"), "utf8")).toStartWith(own);
    // Of an interrupted `off`.
    rmSync(join(box.home, ".config/vm.autostart.json"));
    await box.ok("autostart", "off");
    expect(readFileSync(join(box.top, "crontab"), "utf8")).toBe(own);
    box.program(
      "crontab",
      `[ $1 = -l ] && { echo 'crontab: Input/output error' >&2; exit 1; }; cat >'${box.top}/crontab'`,
    );
    await box.ends(74, "autostart on --cron", "cannot read the crontab");
    expect(readFileSync(join(box.top, "crontab"), "utf8")).toBe(own);
    expect((await box.json("status")).autostart).toBeNull();
  });

  test("without a crontab there is one afterwards", async () => {
    using box = await withCrontab();
    rmSync(join(box.top, "crontab"));
    box.program(
      "crontab",
      `case $1 in -l) [ -e '${box.top}/crontab' ] || { echo 'no crontab for x' >&2; exit 1; } ;; -) cat >'${box.top}/crontab' ;; esac`,
    );
    await box.ok("autostart", "on", "--cron");
    expect(readFileSync(join(box.top, "crontab"), "utf8")).toMatch(
      /^@reboot HOME=\S+ \S+ autostart start-all # autostart of vm\n$/,
    );
  });

  test("cannot restart a VM: 69", async () => {
    using box = await withCrontab();
    await box.ends(69, "autostart on --cron --restart", "leave out --restart");
    expect((await box.json("status")).autostart).toBeNull();
  });

  test("changes to systemd and back", async () => {
    using box = await withCrontab();
    await box.ok("autostart", "on", "--cron");
    await box.ok("autostart", "on", "--user");
    expect(readFileSync(join(box.top, "crontab"), "utf8")).toBe("0 3 * * * true\n");
    expect((await box.json("autostart")).map(({ manager }: any) => manager)).toEqual(["user"]);
    await box.ok("autostart", "on", "--cron");
    expect((await box.json("autostart")).map(({ manager }: any) => manager)).toEqual(["cron"]);
  });
});
