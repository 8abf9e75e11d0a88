import { expect, test } from "bun:test";
import { symlinkSync, utimesSync } from "node:fs";
import { describeEnded, inferEnd } from "../../src/vm/exit-reason.ts";
import { unrecordedEnd } from "../../src/vm/record-exit.ts";
import type { RunEnd } from "../../src/store/mark-types.ts";
import { VmError } from "../../src/lib/errors.ts";
import { Temp } from "../fixtures/temp.ts";

const RUN = {
  started: new Date().toISOString(),
  detached: true,
  forwards: [],
  typed: { settings: {}, additions: {}, ssh: false },
};

const shutdown = (reason: string): string =>
  `{"event": "SHUTDOWN", "timestamp": {"seconds": 1700000000, "microseconds": 0}, "data": {"reason": ${reason}}}\n`;

test.each<[string, string]>([
  ['"guest-shutdown"', "powered-off"],
  ['"toString"', "killed"],
  ['"__proto__"', "killed"],
  ["5", "killed"],
])("a run with the reason %s: %s", (reason, end) => {
  using temp = new Temp();
  temp.write("events.out", shutdown(reason));
  expect(inferEnd(temp.top, RUN).end).toBe(end as "killed");
});

const PANIC = `{"event": "GUEST_PANICKED", "timestamp": {"seconds": 1700000000, "microseconds": 0}, "data": {}}\n`;
const RESET = PANIC.replace("GUEST_PANICKED", "RESET");

test.each<[what: string, log: string, end: RunEnd]>([
  ["a panic that -no-reboot ended", PANIC + shutdown('"guest-reset"'), "crashed"],
  ["a panic, then quit", PANIC + shutdown('"host-qmp-quit"'), "crashed"],
  ["a panic, then SIGKILL", PANIC, "crashed"],
  ["a panic, a reboot and a shutdown", PANIC + RESET + shutdown('"guest-shutdown"'), "powered-off"],
  ["a panic after a reboot", RESET + PANIC + shutdown('"host-signal"'), "crashed"],
  ["a reboot, then quit", RESET + shutdown('"host-qmp-quit"'), "stopped"],
])("a run with %s", (_what, log, end) => {
  using temp = new Temp();
  temp.write("events.out", log);
  expect(inferEnd(temp.top, RUN).end).toBe(end);
});

test.each([
  ["qemu-system-x86_64: warning: TCG doesn't support requested feature\n", "killed", "qemu was killed"],
  ["swtpm: Data client disconnected\n", "killed", "qemu was killed"],
  ["qemu: warning: x\nqemu: Bad thing\n", "crashed", "qemu failed: qemu: Bad thing"],
  ["qemu: terminating on signal 15 from pid 7 (sh)\n", "killed", "qemu was terminated by a signal"],
])("a qemu that is gone without an event, with the log %j", (log, end, how) => {
  using temp = new Temp();
  temp.write("qemu.log", log);
  expect(inferEnd(temp.top, RUN)).toMatchObject({ end, how });
});

test("the end of a killed qemu is not before the last sign of it, and said to be so", () => {
  using temp = new Temp();
  const at = new Date(Date.now() - 60_000);
  for (const [name, seconds] of [
    ["events.out", 0],
    ["console.log", 20],
    ["disk-0.img", 10],
  ] as const) {
    temp.write(name, "");
    utimesSync(temp.path(name), at, new Date(at.getTime() + seconds * 1000));
  }
  const ended = inferEnd(temp.top, { started: at.toISOString() });
  expect(ended.at).toEqual(new Date(at.getTime() + 20_000));
  expect(describeEnded(ended)).toBe("qemu was killed, at this time or later");
});

test.each(["events.out", "qemu.log"])("a record that is not a regular file (%s) is ignored", (name) => {
  using temp = new Temp();
  symlinkSync("/dev/zero", temp.path(name));
  expect(inferEnd(temp.top, RUN).end).toBe("killed");
  using other = new Temp();
  Bun.spawnSync(["mkfifo", other.path(name)]);
  expect(inferEnd(other.top, RUN).end).toBe("killed");
});

test("reports the exit reason that cannot be recorded because of another command", () => {
  const busy = new VmError("busy", "another command changes the VM");
  const end = { shutdown: { guest: true, reason: "guest-shutdown" }, status: 0, signal: null };
  expect(unrecordedEnd(busy, end as never, undefined)).toMatchObject({
    exitCode: 75,
    message: "the guest shut down, but the exit reason is not recorded: another command changes the VM",
    hint: "the next command records it",
  });
  expect(unrecordedEnd(busy, end as never, { signal: "SIGTERM" })).toMatchObject({ exitCode: 143 });
  const other = new VmError("io", "x");
  expect(unrecordedEnd(other, end as never, { signal: "SIGTERM" })).toBe(other);
});
