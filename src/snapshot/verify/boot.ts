import { join } from "node:path";
import { VmError } from "../../lib/errors.ts";
import { quoteLine } from "../../lib/text.ts";
import { interruption, throwIfInterrupted } from "../../process/signals.ts";
import { watchDirectory } from "../../process/watch-directory.ts";
import { buildQemuArgv } from "../../qemu/argv.ts";
import { KILL_ONLY } from "../../qemu/end.ts";
import { startQemu, type QemuSession } from "../../qemu/session.ts";
import { probeQemu } from "../../qemu/probe.ts";
import type { QmpEvent } from "../../qmp/events.ts";
import { ARCH } from "../../machine/arch.ts";
import { readTail } from "../../lib/read-file.ts";
import { fileError } from "../../store/files.ts";
import { WORK } from "../../store/layout.ts";
import { stageWork } from "../../store/stage.ts";
import type { Context } from "../../vm/context.ts";
import type { Vm } from "../../vm/find.ts";
import { parseSeconds } from "../../lib/seconds.ts";
import type { Snapshot } from "../../store/snapshots.ts";
import { fillCopy, resolveCopy } from "./copy.ts";
import type { Report } from "./report.ts";

/** When a guest counts as booted. */
export interface BootWait {
  /** On its serial console; absent: a login prompt, or its agent. */
  pattern: RegExp | undefined;
  seconds: number;
}

const LIMIT_SECONDS = 300;
const LOGIN = /\blogin: *$/m;
/** The console is looked at this often; its file's events come first. */
const LOOK_MS = 250;

/** @throws 64 */
export function parseBootWait(pattern: string | undefined, timeout: string | undefined): BootWait {
  const seconds = parseSeconds("timeout", timeout, 1) ?? LIMIT_SECONDS;
  try {
    return { pattern: pattern === undefined ? undefined : new RegExp(pattern, "mu"), seconds };
  } catch (error) {
    throw new VmError("usage", `--boot-wait: '${pattern}' is no regular expression`, { cause: error });
  }
}

type BootOutcome = Partial<Pick<Report, "booted" | "late" | "ok" | "problems">>;

/**
 * Boots a copy of a good snapshot in TMPDIR: no display, no shares, no network beyond itself, no PROG.defaults.
 * Nothing of the VM is touched, and nothing of the copy stays.
 */
export async function bootSnapshot(
  context: Context,
  vm: Vm,
  snapshot: Snapshot,
  wait: BootWait,
): Promise<BootOutcome> {
  const stage = stageWork(vm.hostdir, context, { state: "none" });
  try {
    await fillCopy(context, vm, snapshot, stage);
    throwIfInterrupted();
    return await bootCopy(context, vm, stage.dir, wait);
  } catch (error) {
    throw fileError(`cannot boot ${snapshot.name}`, error);
  } finally {
    stage.abort();
  }
}

async function bootCopy(context: Context, vm: Vm, dir: string, wait: BootWait): Promise<BootOutcome> {
  const { QEMUARCH } = vm.settings;
  const capabilities = await probeQemu(ARCH[QEMUARCH].binary, context.cacheDirectory);
  const argv = buildQemuArgv(await resolveCopy(context, vm, dir, capabilities), capabilities);
  const logPath = join(dir, WORK.qemuLog);
  const next = Promise.withResolvers<BootOutcome>();
  const hear = ({ event, data }: QmpEvent): void => {
    // The guest's end of the agent's line (qapi/char.json).
    if (!wait.pattern && event === "VSERPORT_CHANGE" && data.open === true)
      next.resolve({ booted: "its agent answers" });
  };
  let machine: QemuSession;
  try {
    const monitor = join(dir, WORK.monitor);
    machine = await startQemu({
      argv,
      directory: dir,
      monitor,
      logPath,
      onEvent: hear,
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
  const look = (): void => {
    if ((pattern ?? LOGIN).test(consoleOf(dir)))
      resolve({ booted: pattern ? "as --boot-wait says" : "it asks for a login" });
  };
  const giveUp = (problem: string, late?: true): void => {
    look();
    resolve({ ok: false, problems: [problem + lastSaid(dir)], late });
  };
  void ended.then(() => giveUp("the guest was off before it had booted"));
  const limit = setTimeout(() => giveUp(`did not boot within ${seconds} seconds`, true), seconds * 1000);
  const stop = (): void => resolve({});
  interruption.addEventListener("abort", stop);
  if (interruption.aborted) stop();
  using _watch = watchDirectory(dir, { everyMs: LOOK_MS }, look);
  try {
    return await promise;
  } finally {
    clearTimeout(limit);
    interruption.removeEventListener("abort", stop);
  }
}

/** What the guest's serial console shows, without what moves a terminal's cursor (ECMA-48). */
const consoleOf = (dir: string): string =>
  (readTail(join(dir, WORK.consoleLog)) ?? "")
    // oxlint-disable-next-line no-control-regex
    .replaceAll(/\x1b(\[[0-?]*[ -/]*[@-~]|.)/g, "")
    .replaceAll("\r", "");

function lastSaid(dir: string): string {
  const last = consoleOf(dir)
    .split("\n")
    .findLast((line) => line.trim() !== "");
  return last === undefined
    ? "; its serial console shows nothing"
    : `; its serial console shows last: ${quoteLine(last.trim())}`;
}
