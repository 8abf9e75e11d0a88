import { confineBy } from "../../vm/jail.ts";
import { closeSync, existsSync } from "node:fs";
import { join } from "node:path";
import { reasonOf, VmError } from "../../lib/errors.ts";
import { openForReading } from "../../lib/read-file.ts";
import { ARCH } from "../../machine/arch.ts";
import { limitWait, throwIfInterrupted } from "../../process/signals.ts";
import { buildQemuArgv } from "../../qemu/argv.ts";
import { KILL_ONLY } from "../../qemu/end.ts";
import { probeQemu } from "../../qemu/probe.ts";
import { INCOMING_ARGS, loadDevices, openMappedRam } from "../../qemu/ram-state.ts";
import { startQemu, type QemuSession } from "../../qemu/session.ts";
import { AgentExited, AgentTimeout, GuestAgent } from "../../qmp/agent.ts";
import { findChardev } from "../../qmp/chardev.ts";
import { changesAgentPort, type QmpEvent } from "../../qmp/events.ts";
import { STATE, WORK, workingPath } from "../../store/layout.ts";
import { newMark } from "../../store/mark-types.ts";
import type { Snapshot } from "../../store/snapshots.ts";
import type { Context } from "../../vm/context.ts";
import { readExtraArgs } from "../../vm/extra-args.ts";
import type { Vm } from "../../vm/find.ts";
import { ramDescriptor } from "../../vm/ram.ts";
import { findOtherHost } from "../../vm/saved-machine.ts";
import { companionOf } from "../../vm/tpm.ts";
import { findRamFile, readSavedRun } from "../restore-ram.ts";
import { resolveCopy } from "./copy.ts";
import type { BootOutcome, BootWait } from "./report.ts";

/** How long a guest without an agent must run, without a reset or a panic. */
const RUNS_MS = 5000;

/**
 * Resumes a copy of a snapshot with RAM: a machine with the same devices, isolated, and with a private mapping of the RAM.
 * @param dir the copy
 * @param watchConsole waits for `--boot-wait`
 * @returns why it cannot be resumed on this host
 */
export async function resumeCopy(
  context: Context,
  vm: Vm,
  snapshot: Snapshot,
  dir: string,
  wait: BootWait,
  watchConsole: (machine: QemuSession) => Promise<BootOutcome>,
): Promise<BootOutcome | string> {
  const saved = snapshot.manifest!.machine!;
  const capabilities = await probeQemu(ARCH[vm.settings.QEMUARCH].binary, context.cacheDirectory);
  const work = { state: "present" as const, dir, inplace: false, mark: newMark() };
  if (readExtraArgs(context, { ...vm, work }).length > 0)
    return `its machine has further arguments (${context.prog}.defaults)`;
  const { cd } = saved;
  if (cd.path !== null && !existsSync(cd.path)) return `the CD in its drive is missing: ${cd.path}`;
  const run = readSavedRun(snapshot);
  const copy = await resolveCopy(context, vm, dir, capabilities, { saved: run && { run, cd } });
  const other = findOtherHost(saved, copy.accel, capabilities);
  if (other !== undefined) return other;
  const ramFd = openMappedRam(
    findRamFile(snapshot) ? join(snapshot.dir, STATE.ram) : workingPath(dir, STATE.ram),
  );
  const devicesFd = openForReading(workingPath(dir, STATE.devices));
  const next = Promise.withResolvers<BootOutcome>();
  const fail = (problem: string): void => next.resolve({ ok: false, problems: [problem] });
  const agent = new AbortController();
  const onEvent = (change: QmpEvent): void => {
    const { event } = change;
    if (changesAgentPort(change, false)) agent.abort(new AgentExited());
    if (event === "RESET" || event === "GUEST_PANICKED")
      fail(event === "RESET" ? "the resumed guest was reset" : "the resumed guest has panicked");
  };
  const fd = ramDescriptor(copy);
  const logPath = join(dir, WORK.qemuLog);
  let machine: QemuSession;
  try {
    const ram = { path: `/proc/self/fd/${fd}`, shared: false };
    machine = await startQemu({
      argv: [...buildQemuArgv({ ...copy, ram }, capabilities), ...INCOMING_ARGS],
      jail: await confineBy(context, vm.settings)(copy, dir),
      directory: dir,
      monitor: join(dir, WORK.monitor),
      logPath,
      ...companionOf(copy, dir, logPath),
      lastFds: [ramFd, devicesFd],
      onEvent,
    });
  } catch (error) {
    if (!(error instanceof VmError) || error.code !== "io") throw error;
    return { ok: false, problems: [`cannot be resumed: ${error.message}`] };
  } finally {
    closeSync(ramFd);
    closeSync(devicesFd);
  }
  try {
    await loadDevices(machine.qmp, fd + 1, machine.ended);
    await machine.qmp.execute("cont");
    void machine.ended.then(() => fail("the resumed guest shut down"));
    const runs = wait.pattern
      ? watchConsole(machine).then(asResumed)
      : watchGuest(machine, dir, wait, agent.signal);
    runs.then(next.resolve, next.reject);
    return await next.promise;
  } catch (error) {
    throwIfInterrupted();
    return { ok: false, problems: [`cannot be resumed: ${reasonOf(error)}`] };
  } finally {
    await machine.end(KILL_ONLY);
  }
}

const asResumed = ({ booted, ...outcome }: BootOutcome): BootOutcome =>
  booted === undefined ? outcome : { ...outcome, resumed: booted };

/** The agent answers if it was running; else the guest runs for a while. */
async function watchGuest(
  { qmp }: QemuSession,
  dir: string,
  { seconds }: BootWait,
  exited: AbortSignal,
): Promise<BootOutcome> {
  if ((await findChardev(qmp, WORK.agent))?.guestOpen) {
    try {
      using _agent = await GuestAgent.connect(join(dir, WORK.agent), seconds * 1000, exited);
      return { resumed: "guest agent answers" };
    } catch (error) {
      const late = error instanceof AgentTimeout;
      if (!late && !(error instanceof AgentExited)) throw error;
      return { ok: false, problems: [`resumed, and ${error.message}`], ...(late && { late }) };
    }
  }
  const { promise, resolve } = Promise.withResolvers<void>();
  using _limit = limitWait(Math.min(RUNS_MS, seconds * 1000), resolve);
  await promise;
  return { resumed: "runs" };
}
