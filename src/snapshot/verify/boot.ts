import { confineBy } from "../../vm/jail.ts";
import { join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { quoteLine } from "../../lib/text.ts";
import { interruption, throwIfInterrupted } from "../../process/signals.ts";
import { watchDirectory } from "../../process/watch-directory.ts";
import { buildQemuArgv } from "../../qemu/argv.ts";
import { KILL_ONLY } from "../../qemu/end.ts";
import { startQemu, type QemuSession } from "../../qemu/session.ts";
import { probeQemu } from "../../qemu/probe.ts";
import { changesAgentPort, type QmpEvent } from "../../qmp/events.ts";
import { ARCH } from "../../machine/arch.ts";
import { readTail } from "../../lib/read-file.ts";
import { fileError } from "../../store/files.ts";
import { WORK } from "../../store/layout.ts";
import { hasRam } from "../../store/manifest.ts";
import { stageWork } from "../../store/stage.ts";
import type { Context } from "../../vm/context.ts";
import type { Vm } from "../../vm/find.ts";
import { parseSeconds } from "../../lib/seconds.ts";
import type { Snapshot } from "../../store/snapshots.ts";
import { companionOf } from "../../vm/tpm.ts";
import { fillCopy, resolveCopy } from "./copy.ts";
import type { BootOutcome, BootWait } from "./report.ts";

const LIMIT_SECONDS = 300;
const LOGIN = /\blogin: *$/m;
/** Interval of checks, besides those after inotify events. */
const POLL_MS = 250;

/** @throws 64 */
export function parseBootWait(pattern: string | undefined, timeout: string | undefined): BootWait {
  const seconds = parseSeconds("timeout", timeout, 1) ?? LIMIT_SECONDS;
  try {
    return { pattern: pattern === undefined ? undefined : new RegExp(pattern, "mu"), seconds };
  } catch (error) {
    throw new VmError("usage", `--boot-wait: '${pattern}' is no regular expression`, { cause: error });
  }
}

/**
 * Boots a temporary copy of an intact snapshot in TMPDIR: no display, no shares, an isolated network, no PROG.defaults.
 * One with RAM is resumed, if this host can. The VM itself is not changed.
 */
export async function bootSnapshot(
  context: Context,
  vm: Vm,
  snapshot: Snapshot,
  wait: BootWait,
  notes: readonly string[] = [],
): Promise<BootOutcome> {
  const stage = stageWork(vm.hostdir, context, { state: "none" });
  const { dir } = stage;
  const ram = hasRam(snapshot.manifest);
  try {
    await fillCopy(context, vm, snapshot, stage, ram);
    throwIfInterrupted();
    if (!ram) return await bootCopy(context, vm, dir, wait);
    const { resumeCopy } = await import("./resume.ts");
    const watch = (machine: QemuSession): Promise<BootOutcome> =>
      watchConsole(dir, machine, wait, Promise.withResolvers());
    const outcome = await resumeCopy(context, vm, snapshot, dir, wait, watch);
    if (typeof outcome !== "string") return outcome;
    const booted = await bootCopy(context, vm, dir, wait);
    return { ...booted, notes: [...notes, `its RAM was not resumed: ${outcome}`] };
  } catch (error) {
    throw fileError(`cannot boot ${snapshot.name}`, error);
  } finally {
    stage.abort();
  }
}

async function bootCopy(context: Context, vm: Vm, dir: string, wait: BootWait): Promise<BootOutcome> {
  const { QEMUARCH } = vm.settings;
  const capabilities = await probeQemu(ARCH[QEMUARCH].binary, context.cacheDirectory);
  const resolved = await resolveCopy(context, vm, dir, capabilities);
  const argv = buildQemuArgv(resolved, capabilities);
  const logPath = join(dir, WORK.qemuLog);
  const next = Promise.withResolvers<BootOutcome>();
  const onEvent = (event: QmpEvent): void => {
    if (!wait.pattern && changesAgentPort(event, true)) next.resolve({ booted: "guest agent connected" });
  };
  let machine: QemuSession;
  try {
    const monitor = join(dir, WORK.monitor);
    machine = await startQemu({
      argv,
      jail: await confineBy(context, vm.settings)(resolved, dir),
      directory: dir,
      monitor,
      logPath,
      ...companionOf(resolved, dir, logPath),
      onEvent,
    });
  } catch (error) {
    if (error instanceof VmError && error.code === "io")
      return { ok: false, problems: [`does not boot: ${error.message}`] };
    throw error;
  }
  try {
    const verdict = await watchConsole(dir, machine, wait, next);
    throwIfInterrupted();
    return verdict;
  } finally {
    await machine.end(KILL_ONLY);
  }
}

async function watchConsole(
  dir: string,
  { ended }: QemuSession,
  { pattern, seconds }: BootWait,
  { promise, resolve }: PromiseWithResolvers<BootOutcome>,
): Promise<BootOutcome> {
  const check = (): void => {
    if ((pattern ?? LOGIN).test(consoleOf(dir)))
      resolve({ booted: pattern ? "--boot-wait matched" : "login prompt" });
  };
  const fail = (problem: string, late?: true): void => {
    check();
    resolve({ ok: false, problems: [problem + describeLastLine(dir)], late });
  };
  void ended.then(() => fail("the guest shut down before it had booted"));
  const limit = setTimeout(() => fail(`did not boot within ${seconds} seconds`, true), seconds * 1000);
  const stop = (): void => resolve({});
  interruption.addEventListener("abort", stop);
  if (interruption.aborted) stop();
  using _watch = watchDirectory(dir, { everyMs: POLL_MS }, check);
  try {
    return await promise;
  } finally {
    clearTimeout(limit);
    interruption.removeEventListener("abort", stop);
  }
}

/** Output of the guest's serial console, without escape sequences (ECMA-48). */
const consoleOf = (dir: string): string =>
  (readTail(join(dir, WORK.consoleLog)) ?? "")
    // oxlint-disable-next-line no-control-regex
    .replaceAll(/\x1b(\[[0-?]*[ -/]*[@-~]|.)/g, "")
    .replaceAll("\r", "");

function describeLastLine(dir: string): string {
  const last = consoleOf(dir)
    .split("\n")
    .findLast((line) => line.trim() !== "");
  return last === undefined
    ? "; no output on its serial console"
    : `; last line of its serial console: ${quoteLine(last.trim())}`;
}
