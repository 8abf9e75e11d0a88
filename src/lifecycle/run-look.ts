import { confineBy } from "../vm/jail.ts";
import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { log, snapshotName } from "../lib/log.ts";
import type { Machine } from "../machine/types.ts";
import { buildQemuArgv } from "../qemu/argv.ts";
import type { Capabilities } from "../qemu/capabilities.ts";
import { startQemu, type QemuSession } from "../qemu/session.ts";
import { WORK } from "../store/layout.ts";
import type { Snapshot } from "../store/snapshots.ts";
import type { Workdir } from "../store/workdir.ts";
import { connectCards } from "../vm/cards.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";
import { GuestErrorMonitor } from "../vm/guest-errors.ts";
import { refuseExcess } from "../vm/limits.ts";
import { withVmToRead } from "../vm/open.ts";
import { openRam } from "../vm/ram.ts";
import { requireGuestEnd } from "../vm/record-exit.ts";
import { companionOf } from "../vm/tpm.ts";
import { endWithGuest, showScreen } from "../vm/viewer.ts";
import { waitUntilOff } from "./wait-until-off.ts";

/** A prepared machine over a snapshot (snapshot/look.ts); disposal removes its files. */
interface LookMachine extends AsyncDisposable {
  readonly snapshot: Snapshot;
  readonly words: readonly string[];
  readonly work: Workdir;
  readonly machine: Machine;
  readonly capabilities: Capabilities;
}

/**
 * Runs a throw-away machine over a snapshot until the guest is off; the VM may be running, and can be used meanwhile.
 * @param open prepares it, under the VM's lock
 * @throws as `runVm`
 */
export async function runLook(
  context: Context,
  open: (vm: Vm) => Promise<LookMachine>,
  limitSeconds: number | undefined,
): Promise<void> {
  // Under the lock until qemu has the snapshot's images open: they may be removed then.
  const { vm, look, session } = await withVmToRead(context, "run", async (found) => {
    const opened = await open(found);
    try {
      return { vm: found, look: opened, session: await startLook(context, found, opened) };
    } catch (error) {
      await opened[Symbol.asyncDispose]();
      throw error;
    }
  });
  await using _files = look;
  const stop = await waitUntilOff(session, look.work, vm.settings.STOP_TIMEOUT, limitSeconds);
  const how = requireGuestEnd(await session.ended, stop);
  log.success(`${how}; nothing of this run of ${snapshotName(look.snapshot.name)} is kept`);
}

async function startLook(
  context: Context,
  { settings }: Vm,
  { words, work, machine, capabilities }: LookMachine,
): Promise<QemuSession> {
  using ram = openRam(machine, false);
  const resolved = { ...machine, ram: ram.ram };
  const argv = buildQemuArgv(resolved, capabilities);
  refuseExcess("run", resolved, argv);
  const cards = await connectCards(context, work.dir, resolved.name, resolved.nics);
  const logPath = join(work.dir, WORK.qemuLog);
  const errors = new GuestErrorMonitor(work.dir);
  let session: QemuSession;
  try {
    session = await startQemu({
      argv,
      jail: await confineBy(context, settings)(resolved, work.dir),
      directory: work.dir,
      monitor: join(work.dir, WORK.monitor),
      logPath,
      arch: resolved.arch,
      ...companionOf(resolved, work.dir, logPath),
      furtherFds: cards.fds,
      lastFds: ram.fds,
      onEvent: (event) => errors.onEvent(event),
    });
  } catch (error) {
    errors[Symbol.dispose]();
    await cards.withdraw();
    throw error;
  }
  cards.handOver();
  errors.qmp = session.qmp;
  void session.ended.then(() => errors[Symbol.dispose]());
  if (
    resolved.nics.some(
      ({ network, forwards }) => network.kind !== "user" || !forwards.includes("restrict=on"),
    )
  )
    log.warn("this guest has the UUID and MAC addresses of the VM: both on one network disturb each other");
  else if (resolved.nics.length > 0)
    log.info(`  without a network; to connect it: ${commandLine(...words, "--net=user")}`);
  const viewer = showScreen(context, work, resolved, true);
  if (viewer) endWithGuest(viewer, session);
  return session;
}

/** @throws 64 for options of `run` that a throw-away machine has no use for */
export function refuseForLook(given: Readonly<Record<string, unknown>>): void {
  const name = Object.keys(given).find((key) => given[key] !== undefined && given[key] !== false);
  if (name === undefined) return;
  const what = name === "isoimage" ? "a CD image" : `--${name}`;
  throw new VmError("usage", `run: --from and --from-remote take no ${what}`, {
    hint: `to keep what the guest does: ${commandLine("restore")}, then ${commandLine("run")}`,
  });
}
