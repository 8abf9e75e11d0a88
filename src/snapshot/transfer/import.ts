import { mkdirSync, renameSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { beginStep } from "../../lib/activity.ts";
import { commandLineFor, programLine } from "../../lib/command-line.ts";
import { SignalError, VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { lstatOf } from "../../lib/read-file.ts";
import { formatSize } from "../../lib/size.ts";
import { plain } from "../../lib/text.ts";
import { formatDuration } from "../../lib/time.ts";
import { newUuid } from "../../lib/uuid.ts";
import { openBytes, type ByteSource } from "../../process/byte-source.ts";
import { requireCopier } from "../../process/copy-bytes.ts";
import { fileError, removeQuietly, replaceSymlink, requireSpace, syncDirectory } from "../../store/files.ts";
import { HOST, LAST, PARTIAL } from "../../store/layout.ts";
import { lockVm } from "../../store/lock.ts";
import { notePlace } from "../../store/places.ts";
import { remove } from "../../store/remove.ts";
import type { Context } from "../../vm/context.ts";
import {
  chooseDirectory,
  makeDestination,
  refuseTakenDirectory,
  resolveDestination,
} from "../../vm/destination.ts";
import { readVm, type Vm } from "../../vm/find.ts";
import { findOther, identityOf, writeIdentity } from "../../vm/identity.ts";
import { findReaches, formatReach } from "../../vm/reach.ts";
import { reportVolatile } from "../../vm/volatile.ts";
import type { TransferFormat } from "../choices.ts";
import { restoreSnapshot } from "../restore.ts";
import { acceptReceived } from "./accept.ts";
import { totalOf, type Index } from "./index-file.ts";
import { isFrom, prepare, readIndex, receive, TRUNCATED } from "./receive.ts";

/** Arguments of `import`. */
export interface ImportRequest {
  /** Path, as typed; absent: stdin. */
  file: string | undefined;
  /** Absent: that of `-d`, or one with the VM's name in the current directory. */
  directory: string | undefined;
  newIdentity: boolean;
  format: TransferFormat;
}

const CANNOT = "cannot import";

/** In DIR while it is received: `isTakenBy` of the destination ignores such names. */
const STAGED = `${PARTIAL}import`;

/**
 * Makes a VM of an export: its snapshots, and its disks from the last one. Nothing but a hidden directory is there before
 * all of it was received and checked.
 * @throws 64 if stdin is a terminal, 66 without the file, 73 if DIR exists or without space, 74 if the export is truncated or damaged
 */
export async function importVm(context: Context, request: ImportRequest): Promise<void> {
  requireCopier();
  const path = request.file === undefined ? undefined : resolve(context.cwd, request.file);
  using source = openBytes(
    path,
    `read a file: ${programLine("import", "FILE")}; or a pipe: ssh HOST vm export | ${programLine("import", "-")}`,
  );
  const read = await readIndex(source);
  const continues = (place: string): boolean => isFrom(join(place, STAGED), read.text);
  const typed = chooseDirectory(context, request, read.index.guest);
  const directory = resolveDestination("import", typed, context.cwd, [], continues);
  await importTo({ context, request, source, read, directory, continues });
}

interface Import {
  context: Context;
  request: ImportRequest;
  source: ByteSource;
  read: { index: Index; text: string };
  directory: string;
  /** Is what there is in a directory an interrupted import of the same export? */
  continues: (hostdir: string) => boolean;
}

async function importTo(one: Import): Promise<void> {
  const { source, read, directory, continues: continuesIn } = one;
  const started = performance.now();
  const staged = join(directory, STAGED);
  const withdraw = makeDestination("import", directory);
  using _lock = await lockVm(directory, "import");
  refuseTakenDirectory("import", directory, continuesIn);
  try {
    if (!lstatOf(join(directory, HOST.backups))) await receiveAll(one, staged);
    await restoreImported(one);
    remove(staged);
  } catch (error) {
    // What the restore refuses is none of this host's: no VM is to be left of it.
    if (error instanceof VmError && error.code === "io") removeQuietly(join(directory, HOST.backups));
    const visible = lstatOf(join(directory, HOST.backups)) !== undefined;
    const hint = visible
      ? `its snapshots are there; restore the last one: ${commandLineFor(directory, "restore")}`
      : "free some space and run the command again";
    const failure = fileError(CANNOT, error, hint);
    const continues = source.length !== undefined && canContinue(failure) && lstatOf(staged) !== undefined;
    if (!visible && !continues) {
      removeQuietly(staged);
      withdraw();
    }
    throw failure;
  }
  const { index } = read;
  log.success(
    `imported ${plain(index.guest)} to ${directory}: ${formatSize(totalOf(index))}, ${formatDuration((performance.now() - started) / 1000)}`,
  );
}

/** Is what was received until this error of use for another attempt? */
const canContinue = (error: unknown): boolean =>
  error instanceof SignalError ||
  (error instanceof VmError && (error.code === "cannotCreate" || error.brief === TRUNCATED));

/** Receives the snapshots, and makes all of them visible with one rename. */
async function receiveAll({ context, source, read, directory }: Import, staged: string): Promise<void> {
  const { index } = read;
  const total = totalOf(index);
  const assembled = join(staged, HOST.backups);
  // An earlier attempt was killed between the check and the rename.
  if (lstatOf(assembled)) remove(staged);
  if (isFrom(staged, read.text)) log.info("continuing an interrupted import");
  else {
    requireSpace(directory, total, "import the VM", "snapshots");
    prepare(staged, read);
  }
  const meter = context.meter("import", total);
  using _step = beginStep(() => "import");
  const sums = await receive(source, staged, read, meter).finally(() => meter.finish());
  acceptReceived(staged, index, sums);
  mkdirSync(assembled, { mode: 0o700 });
  for (const [at, name] of index.chain.entries()) {
    syncDirectory(join(staged, String(at)));
    renameSync(join(staged, String(at)), join(assembled, name));
  }
  replaceSymlink(join(assembled, LAST), index.chain.at(-1)!);
  syncDirectory(assembled);
  renameSync(assembled, join(directory, HOST.backups));
  syncDirectory(directory);
}

async function restoreImported({ context, request, read, directory }: Import): Promise<void> {
  const here: Context = {
    ...context,
    hostdir: directory,
    options: { ...context.options, hostdir: directory },
  };
  const open = (): ReturnType<typeof readVm> => readVm(here, directory, true, { lenient: true });
  const uuid = read.index.vm;
  const other = uuid === undefined ? undefined : findOther(here, directory, uuid);
  await restoreSnapshot(here, await open(), { name: read.index.chain.at(-1), uuid });
  const vm = await open();
  const own = identityOf(vm);
  const renews = request.newIdentity || other !== undefined;
  const identity = renews
    ? { uuid: newUuid(), former: own.uuid === undefined ? own.former : [...own.former, own.uuid] }
    : { ...own, uuid: own.uuid ?? newUuid() };
  if (!writeIdentity(vm, identity))
    log.warn(`the UUID could not be stored in ${HOST.guestEnv} of ${basename(directory)}`);
  notePlace(here.cacheDirectory, identity.uuid, directory);
  if (renews)
    log.info(
      other === undefined
        ? "  it has a new UUID and new MAC addresses"
        : `  it has a new UUID and new MAC addresses: the VM in ${other} has those of the export`,
    );
  reportReaches(here, vm);
  if (vm.work.state === "present")
    reportVolatile(directory, vm.work, (...words) => commandLineFor(directory, ...words));
}

/** What the settings of another host's VM reach on this one. */
function reportReaches(context: Context, vm: Vm): void {
  const reaches = findReaches(context, vm).map(formatReach);
  if (reaches.length > 0)
    log.warn(
      `the VM reaches outside its directory: check that before you run it:\n  ${reaches.join("\n  ")}\n  show it again: ${commandLineFor(vm.hostdir, "status")}`,
    );
}
