import { existsSync, rmSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { commandLine } from "../../lib/command-line.ts";
import { VmError } from "../../lib/errors.ts";
import { log } from "../../lib/log.ts";
import { lstatOf } from "../../lib/read-file.ts";
import { formatSize } from "../../lib/size.ts";
import { listAttached, listDevices, type AttachedDisk } from "../../live/attached.ts";
import { findAttached, isSameFile } from "../../live/same-file.ts";
import { expandMacro, macroOf } from "../../machine/macros.ts";
import { ARCH } from "../../machine/arch.ts";
import type { Disk, DiskBus, ImageRequest } from "../../machine/types.ts";
import { throwIfInterrupted } from "../../process/signals.ts";
import {
  buildPluggedDisk,
  hasPlaceFor,
  type NumberedDisk,
  type NumberedDisks,
} from "../../qemu/devices/disk.ts";
import { withDiskIo } from "../../qemu/disk-io.ts";
import { isImageInUse } from "../../qemu/image-lock.ts";
import { PLACES, type Placed } from "../../qemu/layout.ts";
import { probeQemu } from "../../qemu/probe.ts";
import { createImage } from "../../qemu/new-image.ts";
import { QmpError } from "../../qmp/errors.ts";
import { beginDiskChange, endDiskChange } from "../../store/disk-change.ts";
import { fileError, syncFile } from "../../store/files.ts";
import { diskName, diskNumber } from "../../store/layout.ts";
import { readMark, updateRun } from "../../store/mark.ts";
import { ownDisks } from "../../store/own-disks.ts";
import type { Workdir } from "../../store/workdir.ts";
import type { Context } from "../../vm/context.ts";
import type { StoredDisk } from "../../vm/disks.ts";
import type { Vm } from "../../vm/find.ts";
import { nameForQemu } from "../../live/lend.ts";
import { refuseTooManyDisks } from "../../vm/limits.ts";
import { resolveDisk } from "../../vm/machine.ts";
import { Media } from "../../vm/media.ts";
import { findFormats, storableImage } from "../../vm/image-formats.ts";
import { listStoredDisks, withMachine, type Changing } from "./open.ts";
import { noteNextRun, plugDisk } from "./plug.ts";
import type { AddRequest } from "./request.ts";
import { recordDisks, storeDisks } from "./store.ts";

const COMMAND = "add the disk";

/**
 * Adds a disk to the VM: a new one, or an existing image. A running machine gets it at once if its bus and its layout
 * have hot plug, else at the next start.
 * @throws 64 if there is no place for it, 66 for a missing image, 73 if it is attached already, 75 if it is in use
 */
export async function addDisk(context: Context, asked: AddRequest): Promise<void> {
  await withMachine(context, COMMAND, async (changing) => {
    const { vm, work, qmp } = changing;
    const stored = await listStoredDisks(context, vm, work);
    const attached = qmp ? await listAttached(qmp) : [];
    const devices = qmp && (await listDevices(qmp));
    const bus = "image" in asked ? asked.image.bus : (asked.bus ?? defaultBus(vm, stored));
    const number = chooseNumber(changing, bus, stored, attached, devices);
    const disk =
      "image" in asked
        ? await addExistingImage(changing, asked.image, number, stored)
        : await createOwnDisk(changing, { bus, number, sizeBytes: asked.sizeBytes }, stored);
    const name = "image" in asked ? disk.path : basename(disk.path);
    const size = "image" in asked ? "" : ` (${formatSize(asked.sizeBytes)})`;
    log.success(`added ${name}${size} as disk ${disk.number} on ${bus}`);
    if (qmp) await attachNow(changing, disk, [...stored, { request: { bus }, number: disk.number }]);
  });
}

/** The bus of the first disk, or of the one that `create` would make. */
const defaultBus = ({ settings }: Vm, stored: readonly StoredDisk[]): DiskBus =>
  stored[0]?.request.bus ?? settings.DISKS[0]?.bus ?? "VIRT";

/**
 * One above the highest number in use, so that a disk that was removed is not mistaken for the new one; if the machine
 * has no place for it, the lowest free one.
 */
function chooseNumber(
  { vm, work }: Changing,
  bus: DiskBus,
  stored: readonly StoredDisk[],
  attached: readonly AttachedDisk[],
  devices: ReadonlySet<string> | undefined,
): number {
  const used = new Set([
    ...stored.map(({ number }) => number),
    ...ownDisks(work.dir).map((name) => diskNumber(name) ?? 0),
    ...attached.map(({ node }) => Number(node.slice("disk".length))),
    ...vm.settings.CONTROLLER_PLACES.map(({ place }) => place),
  ]);
  const highest = Math.max(-1, ...used) + 1;
  const disks = stored.map(({ request, number }) => ({ bus: request.bus, number }));
  const free = Array.from({ length: PLACES.disks }, (_, number) => number).filter((one) => !used.has(one));
  const hasPlace = (number: number): boolean =>
    devices === undefined || hasPlaceFor(machineOf(vm, disks), { bus, number }, devices);
  const number = [highest, ...free].find((one) => one < PLACES.disks && hasPlace(one)) ?? free[0] ?? highest;
  refuseTooManyDisks(COMMAND, vm, [...disks, { bus, number }]);
  return number;
}

/** Creates a disk of the VM's own, and stores it in guest.env. */
async function createOwnDisk(
  { vm, work }: Changing,
  { bus, number, sizeBytes }: { bus: DiskBus; number: number; sizeBytes: number },
  stored: readonly StoredDisk[],
): Promise<Disk> {
  const name = diskName(number);
  const path = join(work.dir, name);
  const request: ImageRequest = { bus, format: undefined, path: name };
  beginDiskChange(work.dir, name);
  try {
    await createImage(path, { sizeBytes });
    await syncFile(path);
    throwIfInterrupted();
    recordDisks(work, { added: name });
    storeDisks(vm, COMMAND, [...stored, { request, number }]);
  } catch (error) {
    rmSync(path, { force: true });
    endDiskChange(work.dir, name);
    recordDisks(work, {});
    throw fileError(`cannot ${COMMAND}`, error);
  }
  endDiskChange(work.dir, name);
  const place = vm.settings.LAYOUT === 0 ? stored.length : number;
  return resolveDisk(vm, request, place, path, work);
}

/** Stores an existing image in guest.env. */
async function addExistingImage(
  { context, vm, work, qmp }: Changing,
  given: ImageRequest,
  number: number,
  stored: readonly StoredDisk[],
): Promise<Disk> {
  const macros = await new Media(context, vm).macros([given.path], work.dir);
  const named = expandMacro(given.path, macros)!;
  // As on the command line of `run`: relative to the current directory, else to WORKDIR if it is there.
  const here = resolve(context.cwd, named);
  const found = [here, resolve(work.dir, named)].find((path) => existsSync(path)) ?? here;
  if (!lstatOf(found))
    throw new VmError("noInput", `cannot ${COMMAND}: no such disk image: ${found}`, {
      hint: `give its path, absolute or from the current directory: ${commandLine("disk", "add", `${given.bus}=PATH`)}`,
    });
  const own = dirname(found) === work.dir && diskNumber(basename(found)) !== undefined;
  const taken = stored.find((disk) => disk.path !== undefined && isSameFile(disk.path, found));
  if (taken)
    throw new VmError("cannotCreate", `cannot ${COMMAND}: ${found} is disk ${taken.number} of this VM`, {
      hint: `show its disks: ${commandLine("disk", "list")}`,
    });
  const image = own ? { ...given, path: basename(found) } : given;
  const numbered = own ? diskNumber(basename(found))! : number;
  const disk = resolveDisk(vm, image, numbered, found, work);
  const request = own || macroOf(given.path) ? image : storableImage(vm.hostdir, given, found, disk.format);
  if (
    lstatOf(found)?.isFile() &&
    isImageInUse(found) &&
    !(qmp && findAttached(await listAttached(qmp), found))
  )
    throw new VmError("busy", `cannot ${COMMAND}: another qemu has ${found} open`, {
      hint: "shut that VM down first",
    });
  const formats = own ? [] : findFormats([{ ...request, path: found }]);
  const known = vm.settings.IMAGE_FORMATS.filter((item) => item.path !== found);
  storeDisks(vm, COMMAND, [...stored, { request, number: numbered }], {
    ...(formats.length > 0 && {
      IMAGE_FORMATS: [...known.map((item) => `${item.format}=${item.path}`), ...formats],
    }),
  });
  return disk;
}

/** What decides the places of disks. */
const machineOf = ({ settings }: Vm, disks: readonly NumberedDisk[]): Placed & NumberedDisks => ({
  arch: settings.QEMUARCH,
  layout: settings.LAYOUT,
  // Only whether there is any matters here.
  firmware: settings.UEFI
    ? { code: { path: "", format: "" }, vars: { path: "", format: "" }, smm: false }
    : undefined,
  kernel: undefined,
  resumed: false,
  disks,
  controllerPlaces: settings.CONTROLLER_PLACES,
});

/** Records how it is read and written, for `status`. */
function recordAio({ dir }: Workdir, { number, aio }: Disk): void {
  const run = readMark(dir)?.run;
  if (run) updateRun(dir, { diskAios: { ...run.diskAios, [number]: aio ?? "threads" } });
}

/** Plugs a stored disk into the running machine; says so if that is not possible. */
async function attachNow(
  { context, vm, work, qmp }: Changing,
  disk: Disk,
  disks: readonly { request: { bus: DiskBus }; number: number }[],
): Promise<void> {
  const { settings } = vm;
  const capabilities = await probeQemu(ARCH[settings.QEMUARCH].binary, context.cacheDirectory);
  const machine = machineOf(
    vm,
    disks.map(({ request, number }) => ({ bus: request.bus, number })),
  );
  const withIo = withDiskIo(disk, settings.DISK_AIO, capabilities);
  const path = await nameForQemu(work.dir, withIo.path, "write");
  const plugged = buildPluggedDisk(machine, { ...withIo, path });
  if (plugged === undefined)
    return noteNextRun(
      "the guest has it",
      settings.LAYOUT === 0
        ? "this VM has LAYOUT=0, in which new devices have no fixed places"
        : `disks on ${disk.bus} are attached at the start; VIRT, SCSI and NVME also while the guest runs`,
    );
  if (!hasPlaceFor(machine, disk, await listDevices(qmp!)))
    return noteNextRun("the guest has it", "all places for disks that were free at the start are taken");
  try {
    await plugDisk(qmp!, plugged);
    recordAio(work, withIo);
    log.info("attached to the running guest");
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    noteNextRun("the guest has it", error.message);
  }
}
