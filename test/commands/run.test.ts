import { describe, expect, spyOn, test } from "bun:test";
import { closeSync, existsSync, openSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo, type Server } from "node:net";
import { join } from "node:path";
import { flock, LOCK_EX, LOCK_NB } from "../../src/process/libc.ts";
import { signalError } from "../../src/process/signals.ts";
import { lockLog } from "../../src/qemu/image-lock.ts";
import * as watch from "../../src/vm/watch.ts";
import { created } from "../fixtures/built.ts";
import { fastClock } from "../fixtures/fast-clock.ts";
import { HANG, Refusal, type Behaviour } from "../fixtures/qemu/fake-qemu.ts";
import { Sandbox, until } from "../fixtures/sandbox.ts";

const lastEnd = async (box: Sandbox): Promise<string | undefined> => (await box.json("status")).lastEnd?.end;

/** A server on a free loopback port that sends a greeting. */
async function greeter(text: string): Promise<Server & { port: number }> {
  const server = createServer((socket) => void socket.on("error", () => {}).write(text));
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return Object.assign(server, { port: (server.address() as AddressInfo).port });
}

describe("run in the foreground", () => {
  test.each<[reason: string, status: number, end: string, processStatus: number]>([
    ["guest-shutdown", 0, "powered-off", 0],
    ["guest-reset", 0, "reset", 0],
    ["guest-panic", 74, "crashed", 0],
    ["host-qmp-quit", 74, "stopped", 0],
    ["host-signal", 74, "killed", 0],
    ["host-ui", 74, "killed", 0],
    ["something-new", 74, "killed", 0],
    ["", 74, "crashed", 1],
  ])("qemu exits for '%s' → %i, %s", async (reason, status, end, processStatus) => {
    using box = await created();
    const { command, qemu } = await box.following("run");
    qemu.end(reason || undefined, processStatus);
    const result = await command;
    expect({ ...result, end: await lastEnd(box) }).toMatchObject({ status, end });
    // The installer's CD is ejected only after a shutdown by the guest; sockets are always removed.
    expect(existsSync(join(box.work, "FIRSTTIME"))).toBe(status !== 0);
    expect(readdirSync(box.work).filter((name) => name.endsWith(".sock"))).toEqual([]);
  });

  test("waits for a qemu that a killed command has started, and nothing else shows yet", async () => {
    using box = await created();
    const log = openSync(join(box.work, "qemu.log"), "a", 0o600);
    lockLog(log);
    const command = box.vm("run", "--detach");
    await Bun.sleep(100);
    expect(box.qemus).toEqual([]);
    closeSync(log);
    expect(await command).toMatchObject({ status: 0 });
    expect(box.qemus).toHaveLength(1);
    // qemu has inherited it.
    const again = openSync(join(box.work, "qemu.log"), "r");
    expect(flock(again, LOCK_EX | LOCK_NB)).toBe(false);
    closeSync(again);
    await box.ok("stop", "--force");
  });

  test("names the signal that killed qemu", async () => {
    using box = await created();
    const { command, qemu } = await box.following("run");
    process.kill(qemu.process.pid, "SIGKILL");
    expect(await command).toMatchObject({ status: 74, stderr: expect.stringContaining("SIGKILL") });
    expect(await lastEnd(box)).toBe("killed");
  });

  test("reports errors of the guest; resumes one that lacked space", async () => {
    using box = await created();
    const { command, qemu } = await box.following("run");
    const error = { "node-name": "disk0", operation: "write", reason: "it is broken" };
    qemu.emit("BLOCK_IO_ERROR", { ...error, action: "ignore" });
    qemu.emit("BLOCK_IO_ERROR", { ...error, action: "report", reason: "told" });
    qemu.emit("BLOCK_IO_ERROR", { ...error, action: "stop", reason: "stopped" });
    qemu.emit("GUEST_PANICKED", { action: "pause" });
    qemu.emit("BLOCK_IO_ERROR", { ...error, action: "stop", nospace: true });
    await until("it is resumed", () => qemu.requests.some(({ execute }) => execute === "cont"));
    qemu.powerOff();
    const { stderr } = await command;
    for (const word of ["told", "stopped", "panicked", "no space", "resumed"]) expect(stderr).toContain(word);
    expect(stderr).not.toContain("it is broken");
  });

  test.each<[end: string, status: number, recorded: string]>([
    ["guest-reset", 74, "crashed"],
    ["guest-shutdown", 0, "powered-off"],
  ])("a panic, then %s → %i, %s", async (end, status, recorded) => {
    using box = await created();
    const { command, qemu } = await box.following("run");
    qemu.emit("GUEST_PANICKED", { action: "run" });
    if (status === 0) qemu.emit("RESET", { guest: true, reason: "guest-reset" });
    qemu.end(end);
    const result = await command;
    expect(result.status).toBe(status);
    expect(result.stderr).toContain("the guest's kernel panicked");
    expect(await lastEnd(box)).toBe(recorded);
    // The installer has not finished.
    expect(existsSync(join(box.work, "FIRSTTIME"))).toBe(status !== 0);
  });

  test("fails if the working files were destroyed meanwhile (74)", async () => {
    using box = await created();
    const { command, qemu } = await box.following("run");
    await box.ok("destroy", "--force");
    expect(qemu.requests.map(({ execute }) => execute)).toContain("quit");
    expect((await command).status).toBe(74);
    expect(existsSync(box.path(".work"))).toBe(false);
  });
});

describe("the time limit of a run", () => {
  const OBEYS: Behaviour = {};
  const IGNORES: Behaviour = { answers: { system_powerdown: () => ({}) } };

  test.each<[line: string, behaviour: Behaviour, end: string]>([
    ["run -t 1", OBEYS, "powered-off"],
    ["--timeout=1 run", OBEYS, "powered-off"],
    ["--timeout=100 run -t 1", OBEYS, "powered-off"],
    ["--timeout=100 @run --timeout=1 @backup", IGNORES, "stopped"],
    ["-t 1 @run @backup", OBEYS, "powered-off"],
  ])("%s ends with 124", async (line, behaviour, end) => {
    using box = await created("MEMORY=64M\nCORES=1\nDISKS=(AHCI=1M)\nSTOP_TIMEOUT=1\n");
    box.qemu = behaviour;
    using _clock = fastClock();
    await box.ends(124, line, "after 1 seconds");
    expect(await lastEnd(box)).toBe(end);
    const killed = "time limit of 1 s: guest killed: it did not power off within 1 s (STOP_TIMEOUT)";
    if (end === "stopped")
      await box.ends(0, "status", new RegExp(`^ended: .*: ${RegExp.escape(killed)}$`, "m"));
    expect(existsSync(box.path("backups"))).toBe(false);
  });

  test.each<[what: string, conf: string, line: string, status: number]>([
    ["of a settings file is for jobs", "TIMEOUT=1\n", "run", 0],
    ["in front of a batch with a job is for the job", "", "-t 1 @run @job nothing", 66],
  ])("%s", async (_what, conf, line, status) => {
    using box = await created(`MEMORY=64M\nCORES=1\nDISKS=(AHCI=1M)\n${conf}`);
    using _clock = fastClock();
    box.qemu = { started: (qemu) => void setTimeout(() => qemu.powerOff(), 1500) };
    expect((await box.vm(...line.split(" "))).status).toBe(status);
    expect(await lastEnd(box)).toBe("powered-off");
  });

  test.each([
    ["run --detach -t 5", "no process waits"],
    ["run -t 0", "a whole number from 1"],
    ["run -t soon", "soon"],
  ])("%s → 64", async (line, printed) => {
    using box = await created();
    await box.ends(64, line, printed);
    expect(box.qemus).toEqual([]);
  });
});

describe("run", () => {
  test("restores the last snapshot if there are no working files", async () => {
    using box = await created();
    await box.ok("@backup", "S0", "@destroy");
    await box.running();
    expect((await box.json("status")).state).toBe("running");
    await box.ok("stop");
  });

  test("writes the command to a script of its own, readable only by its user", async () => {
    using box = await created();
    const { argv } = await box.running({}, "--ssh");
    const script = join(box.work, "run-vm.sh");
    expect(statSync(script).mode & 0o777).toBe(0o700);
    expect(readFileSync(script, "utf8")).toContain(box.work);
    expect(argv.join(" ")).toMatch(/hostfwd=tcp:127\.0\.0\.1:\d+-:22/);
    const { forwards } = await box.json("status");
    expect(forwards.join()).toMatch(/hostfwd=tcp:127\.0\.0\.1:2\d+-:22/);
  });

  test.each<[title: string, behaviour: Behaviour, status: number, printed: string]>([
    ["qemu that rejects its arguments", { refuse: { status: 1, words: "qemu: -foo: bad" } }, 74, "-foo: bad"],
    ["qemu that exits without a message", { refuse: { status: 3, words: "" } }, 74, "status 3"],
  ])("%s: the record is unchanged", async (_title, behaviour, status, printed) => {
    using box = await created();
    box.qemu = behaviour;
    await box.ends(status, "run --detach", printed, "run-vm.sh");
    expect((await box.json("status")).state).toBe("created");
    expect(existsSync(join(box.work, "FIRSTTIME"))).toBe(true);
  });

  test("tries the next default port if another VM was faster", async () => {
    using box = await created("MEMORY=64M\nCORES=1\nDISKS=(AHCI=1M)\n");
    box.qemu = { refuse: { status: 1, words: "qemu: Address already in use" } };
    await box.ends(74, "run -b", "Address already in use");
    expect(box.qemus.length).toBe(5);
    await box.ends(74, "-p 5999 run -b", "Address already in use");
    expect(box.qemus.length).toBe(6);
  });

  test.each<[title: string, iso: string | undefined, attached: string | undefined]>([
    ["the first time with the CD of the settings, booted first", undefined, "mine.iso"],
    ["with another one this time", "other.iso", "other.iso"],
    ["with an empty argument: none", "", undefined],
  ])("%s", async (_title, iso, attached) => {
    using box = new Sandbox();
    for (const name of ["mine.iso", "other.iso"]) box.write(name, "\0".repeat(65536));
    await box.ok("create", "G", "mine.iso");
    const { argv } = await box.running({}, ...(iso === undefined ? [] : [iso]));
    const cds = ["mine.iso", "other.iso"].filter((name) => argv.some((word) => word.includes(name)));
    expect(cds).toEqual(attached === undefined ? [] : [attached]);
    await box.ok("stop");
    // The CD is not booted after the installation, unless KEEPCD is set.
    expect((await box.running()).argv.join(" ")).not.toContain("mine.iso");
    await box.ok("stop");
    expect((await box.running({}, "--keepcd").catch(() => undefined))?.argv.join(" ") ?? "").not.toContain(
      "other.iso",
    );
  });

  test.each<[line: string, status: number, printed: string]>([
    ["run nothing.iso", 66, "nothing.iso"],
    ["nothing.iso", 66, "nothing.iso"],
    ["statsu", 66, "status"],
    ["run --wait=ssh", 64, "--detach"],
    ["run -b --wait=soon", 64, "soon"],
    ["run -b --wait=ssh", 64, "--ssh"],
    ["--cores=500 run", 64, "processors"],
    ["--image=VIRT=/nowhere run", 66, "/nowhere"],
    ["--forward=tcp::99999-:22 run", 64, "99999"],
    ["--host=0.0.0.0 -p 5990 run", 78, "SPICE_TICKETING"],
  ])("%s → %i", async (line, status, printed) => {
    using box = await created("MEMORY=64M\nCORES=1\nSPICE_TICKETING=off\nPORT=\nDISKS=(AHCI=1M)\n");
    await box.ends(status, line, printed);
    expect(box.qemus).toEqual([]);
  });

  test("names the process that has a forwarded port (75)", async () => {
    using box = await created();
    const server = await greeter("hello");
    await box.ends(
      75,
      `--forward=tcp:127.0.0.1:${server.port}-:22 run`,
      String(server.port),
      String(process.pid),
    );
    server.close();
  });

  test("fails in an empty directory (66), and if the VM is running (75)", async () => {
    using box = new Sandbox();
    await box.ends(66, "run", box.host);
    await box.ok("create", "G");
    await box.running();
    await box.ends(75, "run", "running");
    await box.ends(75, "destroy", "stop", "--force");
    await box.ok("backup");
    await box.ends(75, "restore", "running");
    await box.ends(75, "job check-disks", "running");
  });

  test("opens the screen in an installed viewer, and ends with it", async () => {
    using box = await created("MEMORY=64M\nCORES=1\nDISKS=(AHCI=1M)\n");
    box.environment.DISPLAY = ":0";
    box.program("remote-viewer", `echo "$@" >${box.top}/new; mv ${box.top}/new ${box.top}/viewed; sleep 60`);
    const { command, qemu } = await box.following("run");
    await until("the viewer is up", () => existsSync(join(box.top, "viewed")));
    expect(readFileSync(join(box.top, "viewed"), "utf8")).toContain("spice.vv");
    const password = join(box.work, "spice.password");
    expect(statSync(password).mode & 0o777).toBe(0o600);
    expect(readFileSync(join(box.work, "spice.vv"), "utf8")).toContain(readFileSync(password, "utf8"));
    qemu.powerOff();
    expect((await command).status).toBe(0);
  });

  test.each<[conf: string, option: string, holding: string]>([
    ["DISPLAY_PROTOCOL=vnc\n", "-vnc", "password"],
    ["SPICE_SOCKET=1\nSPICE_TICKETING=off\n", "-spice", "spice.sock"],
    ["SPICE_PASSWORD=secret\n", "-spice", "password-secret"],
  ])("display: %j → %s %s", async (conf, option, holding) => {
    using box = await created(`MEMORY=64M\nCORES=1\nDISKS=(AHCI=1M)\n${conf}`);
    const qemu = await box.running();
    expect(qemu.option(option)).toContain(holding);
    const { display } = await box.json("status");
    expect(display.protocol).toBe(option.slice(1));
    await box.ok("stop");
    expect(readdirSync(box.work).filter((name) => name.endsWith(".vv"))).toEqual([]);
  });
});

describe("run --detach --wait", () => {
  test.each<[wait: string, greeting: string, status: number]>([
    ["ssh", "SSH-2.0-test\r\n", 0],
    ["ssh", "HTTP/1.0 200\r\n", 124],
  ])("%s, greeted by %j → %i", async (wait, greeting, status) => {
    using box = await created();
    const server = await greeter(greeting);
    const { port } = server;
    server.close();
    box.qemu = {
      started: () => void server.listen(port, "127.0.0.1"),
    };
    using _clock = status === 124 ? fastClock() : undefined;
    await box.ends(status, `-t 1 --forward=tcp:127.0.0.1:${port}-:22 run -b --wait=${wait}`);
    server.close();
  });

  test("agent: waits until the guest has opened its port", async () => {
    using box = await created();
    box.qemu = { agent: {} };
    await box.ends(0, "run -b --wait=agent", "agent");
    await box.ok("stop");
    box.qemu = {};
    using _clock = fastClock();
    await box.ends(124, "-t 1 run -b --wait=agent", "agent");
    await box.ok("stop");
    await box.ends(124, "-t 100 run -b --wait=agent -t 1", "agent");
    await box.ok("stop");
  });

  test("seconds; fails if the guest shuts down meanwhile (74)", async () => {
    using box = await created();
    await box.ends(0, "run -b --wait=0");
    await box.ok("stop");
    box.qemu = { started: (qemu) => void setTimeout(() => qemu.powerOff(), 300) };
    await box.ends(74, "run -b --wait=60", "off");
  });
});

describe("stop", () => {
  test.each<
    [title: string, behaviour: Behaviour, line: string, status: number, end: string, asked: string[]]
  >([
    ["a guest that obeys the power button", {}, "stop", 0, "powered-off", ["system_powerdown"]],
    ["by force", {}, "stop --force", 0, "stopped", ["quit"]],
    [
      "a guest that ignores it is killed in time",
      { answers: { system_powerdown: () => ({}) } },
      "stop --timeout=0",
      124,
      "stopped",
      ["quit"],
    ],
    [
      "by the guest agent",
      { agent: { "guest-shutdown": (_args, qemu) => (qemu.powerOff(), HANG) } },
      "stop",
      0,
      "powered-off",
      ["query-chardev"],
    ],
    [
      "an agent that fails: the power button",
      {
        agent: {
          "guest-shutdown": () => {
            throw new Refusal("not now");
          },
        },
      },
      "stop",
      0,
      "powered-off",
      ["system_powerdown"],
    ],
    [
      "a guest that panics meanwhile",
      {
        answers: { system_powerdown: (_args, qemu) => void setTimeout(() => qemu.end("guest-panic"), 10) },
      },
      "stop",
      74,
      "crashed",
      ["system_powerdown"],
    ],
  ])("%s", async (_title, behaviour, line, status, end, asked) => {
    using box = await created();
    const qemu = await box.running(behaviour);
    await box.ends(status, line);
    expect(qemu.requests.map(({ execute }) => execute)).toEqual(expect.arrayContaining(asked));
    expect(await lastEnd(box)).toBe(end);
    const how = {
      "stop --force": "guest killed: --force",
      "stop --timeout=0": "guest killed: it did not power off within 0 s",
    };
    if (end === "stopped") expect((await box.json("status")).lastEnd.how).toBe(how[line as keyof typeof how]);
    else if (end === "powered-off") expect((await box.json("status")).lastEnd.how).toBeUndefined();
    expect((await box.json("status")).state).not.toBe("running");
  });

  test.each(["stop -t 1", "-t 1 stop", "restart -t 1", "--timeout=1 restart"])(
    "%s: the limit counts, wherever it stands",
    async (line) => {
      using box = await created();
      await box.running({ answers: { system_powerdown: () => ({}) } });
      await box.ends(124, line, "within 1 seconds");
      expect(await lastEnd(box)).toBe("stopped");
    },
  );

  test("the VM's STOP_TIMEOUT is its limit", async () => {
    using box = await created();
    await box.ok("set", "STOP_TIMEOUT=1");
    await box.running({ answers: { system_powerdown: () => ({}) } });
    await box.ends(124, "stop", "within 1 seconds");
  });

  test.each<[title: string, behaviour: Behaviour, status: string]>([
    ["by its events", {}, "running"],
    ["by qemu's state", { started: (qemu) => void (qemu.status = "guest-panicked") }, "guest-panicked"],
  ])(
    "a guest whose kernel has panicked, %s: restart kills it and starts it",
    async (_title, behaviour, status) => {
      using box = await created();
      const qemu = await box.running(behaviour);
      if (status === "running") qemu.emit("GUEST_PANICKED", { action: "run" });
      box.qemu = {};
      await box.ends(0, "restart", "killing the guest: its kernel panicked");
      const asked = qemu.requests.map(({ execute }) => execute);
      expect(asked).not.toContain("system_powerdown");
      expect(asked).not.toContain("cont");
      expect(box.qemus).toHaveLength(2);
      expect((await box.json("status")).panicked).toBeUndefined();
    },
  );

  test("kills a guest whose kernel has panicked without asking it to power off (74)", async () => {
    using box = await created();
    const qemu = await box.running();
    qemu.emit("GUEST_PANICKED", { action: "run" });
    expect(await box.json("status")).toMatchObject({ state: "running", panicked: true });
    expect((await box.ok("list")).stdout).toContain("panicked");
    await box.ends(74, "stop", "panicked");
    expect(qemu.requests.map(({ execute }) => execute)).not.toContain("system_powerdown");
    expect(await box.json("status")).toMatchObject({ state: "crashed", lastEnd: { end: "crashed" } });
  });

  test("resumes a paused guest, so that it can shut down", async () => {
    using box = await created();
    const qemu = await box.running();
    await box.ends(0, "pause");
    expect([qemu.status, (await box.json("status")).state]).toEqual(["paused", "paused"]);
    await box.ok("resume");
    expect(qemu.status).toBe("running");
    await box.ok("pause");
    await box.ok("stop");
    expect(await lastEnd(box)).toBe("powered-off");
  });

  test("sends signals to a qemu that does not answer", async () => {
    using box = await created();
    const qemu = await box.running({ answers: { quit: () => HANG } });
    using _clock = fastClock();
    await box.ends(0, "stop --force", "SIGTERM", String(qemu.process.pid));
    // This command knows when it was.
    const { how } = (await box.json("status")).lastEnd;
    expect([await lastEnd(box), how]).toEqual(["stopped", "guest killed: --force"]);
  });

  test("resume fails if the guest's state (74) or the space for its disks (73) prevents it", async () => {
    using box = await created();
    const qemu = await box.running({ answers: { cont: () => ({}) } });
    qemu.status = "io-error";
    await box.ends(74, "resume", "io-error");
    qemu.emit("BLOCK_IO_ERROR", { action: "stop", nospace: true, "node-name": "disk0", operation: "write" });
    expect((await box.json("status")).guestErrors.join()).toContain("no space");
    await box.ends(73, "resume", "no space");
  });

  test.each<[line: string, status: number]>([
    ["stop", 0],
    ["stop --timeout=x", 64],
    ["restart --timeout=1.5", 64],
    ["pause", 66],
    ["resume", 66],
  ])("of a VM that is off: %s → %i", async (line, status) => {
    using box = await created();
    await box.ends(status, line);
  });

  test("in an empty directory: stop → 66, destroy → 0", async () => {
    using box = new Sandbox();
    await box.ends(66, "stop");
    await box.ends(0, "destroy", box.host);
  });

  test("reports a killed qemu once (74, then 0)", async () => {
    using box = await created();
    const qemu = await box.running();
    process.kill(qemu.process.pid, "SIGKILL");
    await qemu.ended;
    await box.ends(74, "stop", "killed");
    await box.ends(0, "stop");
    expect(await lastEnd(box)).toBe("killed");
  });

  test("reports qemu's last message as the reason", async () => {
    using box = await created();
    const qemu = await box.running();
    qemu.end(undefined, 1, "qemu: warning: nothing\nqemu: the disk is on fire");
    await qemu.ended;
    await until("it has printed that", () =>
      readFileSync(join(box.work, "qemu.log"), "utf8").includes("fire"),
    );
    await box.ends(74, "stop", "the disk is on fire");
    expect(await lastEnd(box)).toBe("crashed");
  });
});

describe("restart", () => {
  test("uses the options of the previous run", async () => {
    using box = await created();
    await box.running({}, "--ssh");
    await box.ok("stop");
    await box.ok("--cores=2", "run", "-b", "--ssh");
    await box.ok("restart");
    const { argv } = box.qemus.at(-1)!;
    expect(box.qemus.length).toBe(3);
    expect(argv.join(" ")).toContain("cores=2");
    expect(argv.join(" ")).toContain("hostfwd=tcp:127.0.0.1:");
  });

  test("fails if the guest had to be killed (124)", async () => {
    using box = await created();
    await box.running({ answers: { system_powerdown: () => ({}) } });
    await box.ends(124, "restart --timeout=0", "start the VM again");
    expect(box.qemus.length).toBe(1);
  });

  test("starts a VM that is off", async () => {
    using box = await created();
    await box.ends(0, "restart");
    expect((await box.json("status")).state).toBe("running");
  });
});

describe("destroy", () => {
  test("removes only the working files", async () => {
    using box = await created();
    await box.ok("backup");
    const { work } = box;
    await box.ends(0, "destroy", work);
    expect(existsSync(work)).toBe(false);
    expect(readdirSync(box.host).toSorted()).toEqual(["backups", "guest.env"]);
  });

  test("warns before data is lost: the only copy, or changes since the last snapshot", async () => {
    using box = await created();
    await box.ends(0, "destroy", "no snapshot");
    await box.ok("@create", "G", "@backup");
    await box.running();
    await box.ok("stop");
    await Bun.sleep(10);
    writeFileSync(join(box.work, "disk-0.img"), readFileSync(join(box.work, "disk-0.img")));
    await box.ends(0, "destroy", "S0");
  });

  test("run of one whose directory is gone, without snapshots: what can be done, not to make a snapshot", async () => {
    using box = await created();
    Bun.spawnSync(["rm", "-r", box.work]);
    const { stderr } = await box.ends(66, "run", "cannot run the VM", "create the VM again");
    expect(stderr).not.toContain("backup");
  });

  test("removes the symlink if the directory is gone", async () => {
    using box = await created();
    await box.ok("backup");
    Bun.spawnSync(["rm", "-r", box.work]);
    expect((await box.json("status")).gone).toContain(box.tmp);
    await box.ends(0, "destroy", box.tmp);
    expect(existsSync(box.path(".work"))).toBe(false);
  });
});

test.each([
  [{}, "was requested to power off, and may still do so"],
  [
    {
      answers: {
        system_powerdown: () => {
          throw new Refusal("no");
        },
      },
    },
    "may not have been requested",
  ],
] as const)("stop, interrupted, says what the guest was told", async (behaviour, words) => {
  using box = await created();
  const qemu = await box.running({ answers: { system_powerdown: () => ({}) }, ...behaviour });
  using _wait = spyOn(watch, "waitForEnd").mockImplementation(() => {
    throw signalError("SIGINT");
  });
  await box.ends(130, "stop", words);
  expect(qemu.requests.map(({ execute }) => execute)).not.toContain("quit");
});
