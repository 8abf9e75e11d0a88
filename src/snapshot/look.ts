import { mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { VmError } from "../lib/errors.ts";
import { log, snapshotName } from "../lib/log.ts";
import { formatTimestamp } from "../lib/time.ts";
import { ARCH } from "../machine/arch.ts";
import type { Machine } from "../machine/types.ts";
import { throwIfInterrupted } from "../process/signals.ts";
import type { Capabilities } from "../qemu/capabilities.ts";
import { probeQemu } from "../qemu/probe.ts";
import { fileError } from "../store/files.ts";
import { WORK } from "../store/layout.ts";
import { hasRam } from "../store/manifest.ts";
import { newMark } from "../store/mark-types.ts";
import { findSnapshot, type Snapshot } from "../store/snapshots.ts";
import { makeTemporary } from "../store/temporary.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Context } from "../vm/context.ts";
import type { Vm } from "../vm/find.ts";
import { requireUndamaged } from "./restore.ts";
import { fillCopy, loadCopied, resolveCopy } from "./verify/copy.ts";

/** Which snapshot to boot. */
export interface LookRequest {
  /** Absent: the newest. */
  name: string | undefined;
  /** In the repository, where it is read in place. */
  remote: boolean;
}

/** A throw-away machine over a snapshot, and its files in TMPDIR; disposal removes them. */
export interface Look extends AsyncDisposable {
  readonly snapshot: Snapshot;
  /** The command line that makes the same. */
  readonly words: readonly string[];
  readonly work: Workdir;
  readonly machine: Machine;
  readonly capabilities: Capabilities;
}

/** A directory with `backups`: the VM's, or a view of the repository. */
interface LookSource extends AsyncDisposable {
  hostdir: string;
  name: string | undefined;
  /** Directory for the machine's files. */
  temporary: string;
}

/**
 * Prepares a machine whose disks are new overlays on a snapshot's images, which stay as they are; those of a gz snapshot are
 * unpacked first. Its network cards are connected to nothing, unless the command line has some. The caller holds the VM's lock
 * until qemu has the images open: they may be removed then.
 * @throws 66 if there is no such snapshot, 69 if this host lacks a feature, 73 without space, 74 if it is damaged
 */
export async function openLook(context: Context, vm: Vm, request: LookRequest): Promise<Look> {
  const source = await openSource(context, vm.hostdir, request);
  try {
    const snapshot = findSnapshot(source.hostdir, source.name);
    if (snapshot.problem) throw snapshot.problem;
    requireUndamaged(source.hostdir, snapshot, false);
    announceLook(snapshot, request.remote);
    const dir = join(source.temporary, "work");
    mkdirSync(dir, { mode: 0o700 });
    symlinkSync(source.hostdir, join(dir, WORK.hostLink));
    const own = { ...vm, hostdir: source.hostdir };
    await fillCopy(context, own, snapshot, { dir });
    throwIfInterrupted();
    const { settings } = await loadCopied(context, own, dir);
    const capabilities = await probeQemu(ARCH[settings.QEMUARCH].binary, context.cacheDirectory);
    const machine = await resolveCopy(context, own, dir, capabilities, { look: true });
    const work: Workdir = { state: "present", dir, inplace: false, mark: newMark() };
    return {
      snapshot,
      words: ["run", `--from=${request.name ?? snapshot.name}`, ...(request.remote ? ["--from-remote"] : [])],
      work,
      machine,
      capabilities,
      [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
    };
  } catch (error) {
    await source[Symbol.asyncDispose]();
    throw error instanceof VmError ? error : fileError("cannot run from a snapshot", error);
  }
}

async function openSource(context: Context, hostdir: string, request: LookRequest): Promise<LookSource> {
  if (request.remote) {
    const { openRemote } = await import("./remote/mount.ts");
    const files = await openRemote(context, request.name);
    return {
      hostdir: files.hostdir,
      name: files.snapshot.name,
      temporary: files.hostdir,
      [Symbol.asyncDispose]: () => files[Symbol.asyncDispose](),
    };
  }
  const temporary = makeTemporary(hostdir, context.tmpdir);
  return {
    hostdir,
    name: request.name,
    temporary: temporary.dir,
    [Symbol.asyncDispose]: async () => temporary[Symbol.dispose](),
  };
}

function announceLook(snapshot: Snapshot, remote: boolean): void {
  const { name, made, manifest } = snapshot;
  if (!remote) log.info(`running from ${snapshotName(name)}, made ${formatTimestamp(made)}`);
  if (hasRam(manifest)) log.info("  its RAM is left out: the guest boots");
}
