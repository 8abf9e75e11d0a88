import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Context } from "../../src/vm/context.ts";
import { formatStatus } from "../../src/vm/status-text.ts";
import { readVmStatus } from "../../src/vm/status.ts";
import type { Status } from "../../src/vm/status-types.ts";
import { updateMark } from "../../src/store/mark.ts";
import { FakeQmp } from "../qmp/fake-server.ts";
import { Place } from "../store/working-files.ts";

let place: Place;
let work: string;
beforeEach(() => {
  place = new Place();
  work = place.make("x", "tmp");
  for (const dir of [work, place.host])
    writeFileSync(join(dir, "guest.env"), 'GUESTNAME="G"\nIMAGES=("AHCI=raw=disk-0.img")\n');
});
afterEach(() => place[Symbol.dispose]());

function look(): Promise<Status> {
  const context: Partial<Context> = {
    prog: "vm",
    cwd: place.host,
    home: place.top,
    env: {},
    hostArch: "x86_64",
    tmpdir: place.tmp,
    libexec: "/lib/vm",
  };
  return readVmStatus(context as Context, place.host);
}

const run = {
  started: "2026-01-01T00:00:00.000Z",
  detached: true,
  forwards: ["hostfwd=tcp:127.0.0.1:2222-:22"],
  typed: { settings: {}, additions: {}, ssh: false },
};

/** A running qemu, in this state. */
const qemu = (status = "running"): FakeQmp =>
  new FakeQmp(join(work, "qmp.sock"), ({ execute }) => ({
    return: execute === "query-status" ? { status, running: status === "running" } : {},
  }));

describe("missing working files", () => {
  test.each(["all of it", "its files, one by one"])(
    "%s: status reports it, and what run does",
    async (what) => {
      if (what === "all of it") rmSync(work, { recursive: true });
      else for (const name of ["disk-0.img", "guest.env", "FIRSTTIME"]) rmSync(join(work, name));
      const { state, workingFiles, gone } = await look();
      expect({ state, workingFiles }).toEqual({ state: "stopped", workingFiles: null });
      expect(gone).toContain(work);
      expect(gone).toMatch(/ are gone.*; there is no snapshot to restore$/);
      mkdirSync(place.path("host/backups/S0"), { recursive: true });
      writeFileSync(place.path("host/backups/S0/TS"), "2026-01-01 00:00:00\n");
      symlinkSync("S0", place.path("host/backups/LAST"));
      expect(formatStatus(await look())).toMatch(/^working files: .* are gone.*; 'run' restores S0$/m);
    },
  );
});

describe("a running qemu", () => {
  test("is the guest, even if this program was killed before it recorded qemu's process id", async () => {
    updateMark(work, { lastRun: "unknown", run });
    using _qemu = qemu();
    const { state, job, forwards } = await look();
    expect({ state, job, forwards }).toEqual({ state: "running", job: false, forwards: run.forwards });
  });

  test("is the guest, if run-vm.sh was started by hand", async () => {
    updateMark(work, { lastRun: "powered-off", run: { ...run, ended: run.started } });
    using _qemu = qemu();
    const { state, job, uptimeSeconds } = await look();
    expect({ state, job, uptimeSeconds }).toEqual({ state: "running", job: false, uptimeSeconds: null });
  });

  test("is a job's rescue, if that has a control channel", async () => {
    using _qemu = qemu();
    using _control = Bun.listen({ unix: join(work, "control.sock"), socket: { data: () => {} } });
    expect(await look()).toMatchObject({ state: "running", job: true });
  });

  test("paused for lack of space: status reports why, and what resumes it", async () => {
    updateMark(work, { lastRun: "unknown", run });
    writeFileSync(
      join(work, "events.out"),
      '{"event": "BLOCK_IO_ERROR", "timestamp": {"seconds": 1, "microseconds": 0}, "data": {"action": "stop", "nospace": true, "node-name": "disk0", "operation": "write"}}\n',
    );
    using _qemu = qemu("io-error");
    const status = await look();
    expect(status.state).toBe("paused");
    expect(status.guestErrors).toEqual([
      expect.stringMatching(
        /^guest paused: no space left for its disks .* when 64 MiB are free in .*: vm resume$/,
      ),
    ]);
    expect(formatStatus(status)).toMatch(/^guest error: +guest paused: no space/m);
  });

  test("paused for an I/O error that could not be logged: status reports it", async () => {
    updateMark(work, { lastRun: "unknown", run });
    using _qemu = qemu("io-error");
    expect((await look()).guestErrors).toEqual([expect.stringContaining("I/O error on one of its disks")]);
  });

  test("paused by a command: no error", async () => {
    updateMark(work, { lastRun: "unknown", run });
    using _qemu = qemu("paused");
    const { state, guestErrors } = await look();
    expect({ state, guestErrors }).toEqual({ state: "paused", guestErrors: undefined });
  });

  test("that does not answer: status reports it", async () => {
    updateMark(work, { lastRun: "unknown", run });
    using _silent = Bun.listen({ unix: join(work, "qmp.sock"), socket: { data: () => {} } });
    expect((await look()).guestErrors).toEqual([expect.stringContaining("qemu does not answer")]);
  });
});
