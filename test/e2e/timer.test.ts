/** Unattended runs: by systemd and cron, and notifications. */
import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { cronCommand } from "../fixtures/cron.ts";
import { binary, Sandbox, until } from "./harness.ts";
import { configure, expectError, mode, names, shell, smallSandbox, suite } from "./tools.ts";

/** Characters that are special for systemd, cron or a shell. */
const AWKWARD = String.raw`my vm%i 100% "q" b\s a\\%b $HOME 'x' ж`;

/** A VM with only settings. */
function withSettings(hostName?: string): Sandbox {
  const box = smallSandbox(hostName);
  box.write("guest.env", 'GUESTNAME="G"\n');
  return box;
}

const command = (...words: string[]): string[] => ["timer", "--user", ...words];

/** The output, as files. */
function written(box: Sandbox, printed: string): { service: string; timer: string } {
  const directory = join(box.top, "units");
  mkdirSync(directory, { recursive: true });
  const [service, timer] = printed
    .split(/^# (?=\/)/m)
    .slice(1)
    .map((part) => {
      const end = part.indexOf("\n");
      const path = join(directory, basename(part.slice(0, end)));
      writeFileSync(path, part.slice(end + 1), { mode: 0o644 });
      chmodSync(path, 0o644);
      return path;
    });
  return { service: service!, timer: timer! };
}

/** systemd's own parsing of units: its dump, and its warnings. */
async function understood(box: Sandbox, ...paths: string[]): Promise<{ dump: string; complaints: string[] }> {
  const run = async (level: string): Promise<string> => {
    const child = Bun.spawn(["systemd-analyze", "--user", "verify", ...paths], {
      env: { ...box.env({ XDG_RUNTIME_DIR: box.top }), SYSTEMD_LOG_LEVEL: level },
      stdout: "pipe",
      stderr: "pipe",
    });
    const [out, err] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
    ]);
    expect(await child.exited, err).toBe(0);
    return out + err;
  };
  const complaints = (await run("info")).split("\n").filter((line) => line.includes("vm-"));
  return { dump: await run("debug"), complaints };
}

/** The argument list in a dump, which is quoted for a shell; `$$` becomes `$` when it is run. */
async function argvIn(dump: string): Promise<string[]> {
  const lines = [...dump.matchAll(/^\s*Command Line: (.*)$/gm)].map((match) => match[1]!);
  const line = lines.find((item) => item.includes(basename(binary)))!;
  const text = await shell(`printf '%s\\0' ${line}`, "/");
  return text
    .split("\0")
    .slice(0, -1)
    .map((word) => word.replaceAll("$$", "$"));
}

/** A systemctl that records its arguments: no systemd runs here. */
function withSystemctl(box: Sandbox, status = 0): { env: Record<string, string>; told: () => string[] } {
  const bin = join(box.top, "bin");
  const log = join(box.top, "told");
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(bin, "systemctl"), `#!/bin/sh\necho "$@" >>'${log}'\nexit ${status}\n`, {
    mode: 0o755,
  });
  return {
    env: { PATH: `${bin}:${process.env.PATH}` },
    told: () => readFileSync(log, "utf8").trim().split("\n"),
  };
}

/** A program that records its environment. */
function notifier(
  box: Sandbox,
  setting = "tell",
  status = 0,
): { env: Record<string, string>; told: () => string } {
  const bin = join(box.top, "bin");
  const log = join(box.top, "told");
  mkdirSync(bin, { recursive: true, mode: 0o700 });
  writeFileSync(
    join(bin, "tell"),
    `#!/bin/sh\nenv | grep ^VM_ | sort >'${log}'\necho noise\nexit ${status}\n`,
    { mode: 0o700 },
  );
  configure(box, `MEMORY=64M\nPORT=\nDISKS=(AHCI=16M)\nSNAPSHOT_NOTIFY='${setting}'\n`);
  return {
    env: { PATH: `${bin}:${process.env.PATH}` },
    told: () => (existsSync(log) ? readFileSync(log, "utf8") : ""),
  };
}

suite(
  "timer",
  () => {
    describe.each(["vm1", AWKWARD])("in %s:", (hostName) => {
      test("systemd accepts the units, and starts exactly this", async () => {
        using box = smallSandbox(hostName);
        await box.ok(["create", "G"]);
        const { stdout } = await box.ok(
          command("--on-calendar=*-*-* 03:30", "--", "backup", "--lock-timeout=60", "100% $x"),
        );
        const { service, timer } = written(box, stdout);
        const escaped = await Bun.$`systemd-escape --path ${box.host}`.quiet().text();
        expect(basename(service)).toBe(`vm-backup-${escaped.trimEnd()}.service`);
        const { dump, complaints } = await understood(box, service, timer);
        expect(complaints).toEqual([]);
        const argv = await argvIn(dump);
        expect(argv).toEqual([binary, "-d", box.host, "backup", "--lock-timeout=60", "100% $x"]);
        expect(dump).toContain(`TMPDIR=${box.tmp}`);
        for (const line of [
          "Nice: 10",
          "IOSchedulingClass: idle",
          "Persistent: yes",
          "OnCalendar: *-*-* 03:30:00",
        ])
          expect(dump).toContain(line);
        expect(dump).toContain(`Description: vm backup of G in ${box.host}`);
        const { status } = await box.vm(argv.slice(1, 4), { cwd: "/" });
        expect(status).toBe(0);
        expect(names(box.path("backups"))).toEqual(["LAST", "S0"]);
      });

      test("cron's line creates a snapshot in cron's environment", async () => {
        using box = smallSandbox(hostName);
        await box.ok(["create", "G"]);
        const { stdout } = await box.ok(
          command("--cron", "--on-calendar=daily").filter((word) => word !== "--user"),
        );
        expect(stdout).toMatch(/^\d+ [0-5] \* \* \* \S.*\n$/);
        const line = stdout.trimEnd().replace(/^(\S+ ){5}/, "");
        for (const flavour of ["vixie", "cronie"] as const) {
          const { exitCode, stderr } =
            await Bun.$`env -i HOME=${box.home} LOGNAME=root SHELL=/bin/sh PATH=/usr/bin:/bin sh -c ${cronCommand(line, flavour)}`
              .cwd(box.home)
              .nothrow()
              .quiet();
          expect(exitCode, stderr.toString()).toBe(0);
        }
        expect(names(box.path("backups"))).toEqual(["LAST", "S0", "S1"]);
      });
    });

    test.each(["minutely", "hourly", "daily", "weekly", "Mon..Fri 22:00", "*-*-* 0/2:30"])(
      "systemd-analyze calendar and the program both parse %s",
      async (when) => {
        using box = withSettings();
        const { stdout } = await box.ok(command(`--on-calendar=${when}`));
        const calendar = /^OnCalendar=(.*)$/m.exec(stdout)![1]!;
        expect(calendar).toBe(when);
        await Bun.$`systemd-analyze calendar ${calendar}`.quiet();
      },
    );

    test("a HOSTDIR that is too long for a unit's name gets a hash", async () => {
      using box = withSettings("ж".repeat(100));
      const { service, timer } = written(box, (await box.ok(command())).stdout);
      expect(basename(service)).toMatch(/^vm-backup-[0-9a-f]{32}\.service$/);
      expect((await understood(box, service, timer)).complaints).toEqual([]);
    });

    test("the system's own unit runs as HOSTDIR's owner", async () => {
      using box = withSettings();
      const own = statSync(box.host).uid;
      const { stdout } = await box.ok(["timer", "--system"]);
      if (own === 0) expect(stdout).not.toContain("User=");
      else expect(stdout).toContain(`User=${own}\n`);
      expect(stdout).toContain("# /etc/systemd/system/vm-backup-");
      if (own !== 0) return;
      await Bun.$`chown 1234 ${box.host}`;
      expect((await box.ok(["timer", "--system"])).stdout).toContain("User=1234\n");
    });

    test("refuses invalid requests: 64", async () => {
      using box = withSettings();
      expectError(await box.vm(["timer", "--install", "--remove"]), 64, /cannot be combined/);
      expectError(await box.vm(["timer", "--user", "--system"]), 64, /cannot be combined/);
      expectError(await box.vm(["timer", "--on-calendar=a\nb"]), 64, /on-calendar/);
      expectError(
        await box.vm(["timer", "--cron", "--on-calendar=Mon 3:00"]),
        64,
        /cannot be expressed in a crontab/,
      );
      // Its command is validated, and needs a VM.
      expectError(await box.vm(["timer", "--", "backup", "--bogus"]), 64, /unknown option --bogus/);
      expectError(await box.vm(["timer", "bakcup"]), 64, /unknown command 'bakcup'/);
      using nothing = smallSandbox();
      expectError(await nothing.vm(["timer"]), 66, /there is no VM/);
      for (const action of ["--install", "--print"])
        expectError(await box.vm(command(action, "--on-calendar=never")), 64, /systemd rejects/);
    });

    describe("--install and --remove", () => {
      test("write the units, and remove them", async () => {
        using box = withSettings();
        const { env, told } = withSystemctl(box);
        const directory = join(box.home, ".config/systemd/user");
        await box.ok(command("--install", "--on-calendar=daily"), { env });
        await box.ok(command("--install", "--on-calendar=weekly", "--", "verify", "--all"), { env });
        const made = names(directory);
        expect(made).toHaveLength(4);
        for (const name of made) expect(mode(join(directory, name))).toBe("644");
        const { complaints } = await understood(box, ...made.map((name) => join(directory, name)));
        expect(complaints).toEqual([]);
        const timer = made.find((name) => /^vm-verify-.*timer$/.test(name))!;
        expect(told().slice(-2)).toEqual(["--user daemon-reload", `--user enable --now ${timer}`]);
        await box.ok(command("--remove", "--", "verify"), { env });
        expect(told().slice(-2)).toEqual([`--user disable --now ${timer}`, "--user daemon-reload"]);
        expect(names(directory)).toHaveLength(2);
        expectError(
          await box.vm(command("--remove", "--", "verify"), { env }),
          66,
          /cannot remove the timer/,
        );
      });

      test("a systemd that rejects them (74), or does not run (69): leaves nothing", async () => {
        using box = withSettings();
        const { env } = withSystemctl(box, 1);
        const result = await box.vm(command("--install"), { env });
        if (existsSync("/run/systemd/system")) expectError(result, 74, /cannot change the timer/);
        else {
          expectError(result, 69, /systemd is not running on this host/);
          expect(result.stderr).toContain("use a crontab: ");
        }
        expect(names(join(box.home, ".config/systemd/user"))).toEqual([]);
      });
    });

    describe("SNAPSHOT_NOTIFY", () => {
      test("runs after a snapshot", async () => {
        using box = new Sandbox();
        const { env, told } = notifier(box);
        await box.ok(["create", "G"]);
        const { stdout } = await box.ok(["backup"], { env });
        expect(stdout).toBe("");
        const text = told();
        const size = names(box.path("backups/S0")).reduce(
          (sum, name) => sum + statSync(box.path("backups/S0", name)).size,
          0,
        );
        for (const line of [
          "VM_OUTCOME=ok",
          "VM_SNAPSHOT=S0",
          "VM_NAME=G",
          "VM_STATUS=0",
          `VM_BYTES=${size}`,
        ])
          expect(text).toContain(`${line}\n`);
        expect(text).toContain(`VM_HOSTDIR=${box.host}\n`);
        expect(text).toMatch(/^VM_SECONDS=\d+\.\d$/m);
        expect(text).toMatch(/^VM_MESSAGE=$/m);
      });

      test("runs after failures, with their status; the wait for the lock can be set", async () => {
        using box = new Sandbox();
        const { env, told } = notifier(box);
        await box.ok(["create", "G"]);
        const holder = Bun.spawn(["flock", "-F", box.host, "sleep", "60"]);
        await until(
          "the lock",
          async () => (await Bun.$`flock -n ${box.host} true`.nothrow().quiet()).exitCode !== 0,
        );
        expectError(
          await box.vm(["backup", "--lock-timeout=0", "X"], { env }),
          75,
          /locked by another process/,
        );
        for (const line of [
          /^VM_OUTCOME=failed$/m,
          /^VM_SNAPSHOT=X$/m,
          /^VM_STATUS=75$/m,
          /^VM_MESSAGE=.*locked by another process/m,
        ])
          expect(told()).toMatch(line);
        const waiting = box.start(["backup", "--lock-timeout=60"], { env });
        await Bun.sleep(3500); // longer than the usual wait
        expect(existsSync(box.path("backups"))).toBe(false);
        holder.kill();
        expect((await waiting.done).status).toBe(0);
        expect(told()).toContain("VM_OUTCOME=ok");
        expectError(await box.vm(["backup", "--lock-timeout=soon"]), 64, /lock-timeout/);
      });

      test("its own failure is a warning", async () => {
        using box = new Sandbox();
        const { env, told } = notifier(box, "tell", 3);
        await box.ok(["create", "G"]);
        const { stderr } = await box.ok(["backup"], { env });
        expect(stderr).toMatch(/warning: SNAPSHOT_NOTIFY: .*tell ended with status 3/);
        expect(told()).toContain("VM_OUTCOME=ok");
      });

      test("is not run if others can write it, from the current directory, or if it does not exist", async () => {
        using box = new Sandbox();
        const { env, told } = notifier(box);
        await box.ok(["create", "G"]);
        const bin = join(box.top, "bin");
        const here = await box.ok(["backup"], { env, cwd: bin, program: [binary, "-d", box.host] });
        expect(here.stderr).toMatch(/warning: SNAPSHOT_NOTIFY: cannot run tell: not found on PATH/);
        chmodSync(join(bin, "tell"), 0o777);
        expect((await box.ok(["backup"], { env })).stderr).toMatch(
          /warning: .*refusing to run .*tell: .*writable by other users/,
        );
        expect((await box.ok(["backup"])).stderr).toMatch(/warning: .*not found on PATH/);
        expect(told()).toBe("");
      });

      test("a VM's own settings cannot set one, but disable it", async () => {
        using box = new Sandbox();
        const { env, told } = notifier(box);
        await box.ok(["create", "G"]);
        const file = join(box.work, "guest.env");
        const text = readFileSync(file, "utf8");
        writeFileSync(file, `${text}SNAPSHOT_NOTIFY=\n`);
        await box.ok(["backup"], { env });
        expect(told()).toBe("");
        writeFileSync(file, `${text}SNAPSHOT_NOTIFY=/bin/false\n`);
        const { stderr } = await box.ok(["backup"], { env });
        expect(stderr).toMatch(/warning: ignoring SNAPSHOT_NOTIFY in guest\.env/);
        expect(told()).toContain("VM_OUTCOME=ok");
      });
    });
  },
  ["flock", "systemd-analyze", "systemd-escape"],
);
