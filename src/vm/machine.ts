import { existsSync, mkdirSync, statSync } from "node:fs";
import { isAbsolute, join, resolve } from "node:path";
import type { Loaded } from "../config/load.ts";
import type { Settings } from "../config/schema.ts";
import { ARCH, type ArchFacts } from "../machine/arch.ts";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { warnOnce } from "../lib/log.ts";
import { deriveUuid } from "../lib/uuid.ts";
import { expandMacro, type MacroValues } from "../machine/macros.ts";
import type { SmbiosTable } from "../machine/smbios.ts";
import type { Arch, Disk, ImageRequest, Machine, Share, ShareRequest } from "../machine/types.ts";
import { defaultCpu, resolveAccel } from "../qemu/accel.ts";
import type { Processors } from "../qemu/argv.ts";
import type { Capabilities } from "../qemu/capabilities.ts";
import { formatSince, isSince, uefiFeature } from "../qemu/features.ts";
import { withDiskIo } from "../qemu/disk-io.ts";
import { findBootLoader } from "../qemu/firmware.ts";
import { readImageHeader, readOwnHeader } from "../qemu/image-header.ts";
import { socketIn } from "../process/unix-socket.ts";
import { mapLinks } from "../rescue/mapped-files.ts";
import { isDiskName, WORK } from "../store/layout.ts";
import type { Mark } from "../store/mark-types.ts";
import { requireRegularDisk } from "../store/own-disks.ts";
import { optionsBehind } from "../config/values.ts";
import type { Context } from "./context.ts";
import { numberImages } from "./disks.ts";
import { isArriving } from "../store/snapshot-images.ts";
import { resolveDisplay } from "./display.ts";
import { readExtraArgs } from "./extra-args.ts";
import { refuseSecureBoot, resolveFirmware } from "./firmware.ts";
import { chooseFormat } from "./image-formats.ts";
import { resolveBackingFile, repairDiskBitmaps } from "./backing-file.ts";
import { type Media } from "./media.ts";
import { resolveNetboot } from "./netboot.ts";
import { resolveNics } from "./nics.ts";
import { resolveTpm } from "./tpm.ts";
import { lstatOf, requireReadableFile } from "../lib/read-file.ts";
import type { Vm } from "./find.ts";
import type { Workdir } from "../store/workdir.ts";

/** The CD in the drive, and whether it is first in the boot order. */
export interface Cd {
  path: string;
  first: boolean;
}

/**
 * Resolves the machine of one run: images, shares, firmware, ports, accelerator.
 * @throws 66 for missing files, 69 for features that this host lacks, 75 for a taken port
 */
export async function resolveMachine(
  context: Context,
  vm: Vm,
  work: Workdir,
  media: Media,
  cd: Cd | undefined,
  capabilities: Capabilities,
): Promise<Machine> {
  const { settings } = vm;
  const arch = settings.QEMUARCH;
  refuseOtherFamily(vm);
  if (settings.UEFI) requireUefi(arch, capabilities);
  refuseSecureBoot(settings);
  const tpm = resolveTpm(settings, capabilities);
  const { accel, problem } = resolveAccel(settings.ACCEL, arch, context.hostArch);
  if (problem) warnOnce(`no KVM: ${problem}; the guest is emulated, which is slow`);
  const paths = [...settings.IMAGES, ...settings.SHARES].map((item) => item.path);
  const macros = await media.macros(paths, work.dir);
  return {
    name: settings.GUESTNAME || "vm",
    arch,
    layout: settings.LAYOUT,
    uuid: settings.MAC === "" ? undefined : settings.UUID || undefined,
    ...processorsOf(vm, accel),
    memoryMiB: settings.MEMORY,
    ram: undefined,
    memoryOptions: optionsBehind(vm.raw.MEMORY),
    firmware: settings.UEFI ? resolveFirmware(vm, work) : undefined,
    tpm,
    disks: resolveDisks(context, vm, work, macros, capabilities),
    controllerPlaces: settings.CONTROLLER_PLACES,
    cdrom: cd && { ...cd, blockDevice: statSync(cd.path).isBlockDevice() },
    seed: lstatOf(join(work.dir, WORK.seed))?.isFile() ? join(work.dir, WORK.seed) : undefined,
    nics: resolveNics(context, settings),
    netboot: resolveNetboot(settings),
    shares: settings.SHARES.flatMap((share) => {
      const path = expandMacro(share.path, macros);
      return path === undefined ? [] : resolveShare(share, path, context, capabilities);
    }),
    display: await resolveDisplay(context, vm, work, capabilities),
    kernel: undefined,
    bootLoader: settings.UEFI ? undefined : findBootLoader(arch),
    resumed: false,
    generationId: chooseGenerationId(settings, work.mark, capabilities),
    smbios: resolveSmbios(settings),
    panicDevice: choosePanicDevice(settings, capabilities),
    channels: [{ name: GUEST_AGENT, socket: socketIn(work.dir, WORK.agent) }],
    files: {
      ...resolveFiles(work, WORK.consoleLog),
      backup: socketIn(work.dir, WORK.backup),
      events: join(work.dir, WORK.events),
    },
    endOnReset: cd?.first === true,
    extraArgs: readExtraArgs(context, vm),
  };
}

/** Pure: what decides on the processors. */
export const processorsOf = (
  { settings, raw }: Pick<Vm, "settings" | "raw">,
  accel: Machine["accel"],
): Processors => ({
  accel,
  cpu: settings.CPU || defaultCpu(settings.QEMUARCH, accel),
  sockets: settings.SOCKETS,
  cores: settings.CORES,
  cpuOptions: optionsBehind(raw.CORES),
});

const machineFamilyOf = (arch: Arch): string => (ARCH[arch] as ArchFacts).family ?? arch;

/**
 * Refuses another machine family than the VM was created for: the installed system would not run.
 * @throws 64
 */
export function refuseOtherFamily({ settings: { QEMUARCH }, ownArch = QEMUARCH }: Loaded): void {
  if (machineFamilyOf(QEMUARCH) === machineFamilyOf(ownArch)) return;
  throw new VmError("usage", `--arch=${QEMUARCH}: this VM was created for ${ownArch}`, {
    hint: "omit --arch: each VM has the architecture it was created for",
  });
}

/** @throws 69 if this qemu is too old for the firmware */
function requireUefi(arch: Arch, { version }: Capabilities): void {
  const feature = uefiFeature(arch);
  if (!feature || isSince(version, feature.since)) return;
  throw new VmError(
    "unavailable",
    `${feature.name} needs ${formatSince(feature.since)}, and this is ${version}`,
    { hint: `boot by ${ARCH[arch].biosName}: --no-uefi` },
  );
}

/** @throws 69 if the machine has no such tables */
export function resolveSmbios({ SMBIOS, QEMUARCH }: Pick<Settings, "SMBIOS" | "QEMUARCH">): SmbiosTable[] {
  if (SMBIOS.length === 0 || (ARCH[QEMUARCH] as ArchFacts).smbios) return SMBIOS;
  throw new VmError("unavailable", `${QEMUARCH} guests have no SMBIOS tables`, {
    hint: "leave out --smbios; SMBIOS of a settings file is overridden by SMBIOS=() in guest.env",
  });
}

/** None where it would change the places of the other devices. */
function choosePanicDevice(
  { QEMUARCH, LAYOUT }: Settings,
  { devices }: Capabilities,
): Machine["panicDevice"] {
  const { panicDevice }: ArchFacts = ARCH[QEMUARCH];
  if (panicDevice === undefined || !devices.has(panicDevice)) return undefined;
  return panicDevice === "pvpanic-pci" && LAYOUT === 0 ? undefined : panicDevice;
}

/**
 * A VM has another generation ID with each set of working files: a guest whose disks or RAM were restored, cloned or imported
 * notices it, and gets new random numbers (docs/specs/vmgenid.txt of qemu).
 */
function chooseGenerationId(
  { QEMUARCH, LAYOUT, UUID }: Settings,
  { created }: Mark,
  { devices }: Capabilities,
): string | undefined {
  const { generationId }: ArchFacts = ARCH[QEMUARCH];
  const hasDevice = generationId === true && devices.has("vmgenid");
  return hasDevice && LAYOUT >= GENERATION_LAYOUT ? deriveUuid(`${UUID} generation ${created}`) : undefined;
}

/** The first layout with a generation ID: it is one more device, that earlier VMs have not seen. */
const GENERATION_LAYOUT = 2;

/** The virtio-serial port of qemu-ga (qemu's docs/interop/qemu-ga). */
const GUEST_AGENT = "org.qemu.guest_agent.0";

export const resolveFiles = (work: Workdir, consoleLog: string): Machine["files"] => ({
  qmp: socketIn(work.dir, WORK.qmp),
  monitor: socketIn(work.dir, WORK.monitor),
  console: socketIn(work.dir, WORK.console),
  consoleLog: join(work.dir, consoleLog),
});

/** The VM's own disks and other images, in boot order. */
export function resolveDisks(
  context: Context,
  vm: Vm,
  work: Workdir,
  macros: MacroValues,
  capabilities: Capabilities,
): Disk[] {
  const { IMAGES } = vm.settings;
  const numbers = numberImages(vm.settings);
  const fromFiles = IMAGES.length - (context.options.additions.IMAGES?.length ?? 0);
  return IMAGES.map((image, index) => {
    const path = expandMacro(image.path, macros)!;
    const place = resolveImagePath(path, index >= fromFiles, context, work);
    const disk = resolveDisk(vm, image, numbers[index]!, place, work);
    return withDiskIo(disk, vm.settings.DISK_AIO, capabilities);
  });
}

/** [compat] Relative paths are relative to WORKDIR; typed ones to the current directory, then to WORKDIR. */
function resolveImagePath(path: string, typed: boolean, context: Context, work: Workdir): string {
  if (isAbsolute(path)) return path;
  const here = resolve(context.cwd, path);
  return typed && existsSync(here) ? here : resolve(work.dir, path);
}

/** @throws 66 for a missing image, 74 or 78 for one that is refused */
export function resolveDisk(vm: Vm, image: ImageRequest, number: number, path: string, work: Workdir): Disk {
  const own = path === join(work.dir, image.path) && isDiskName(image.path);
  if (!lstatOf(path))
    throw new VmError("noInput", `no such disk image: ${path}`, {
      hint: own
        ? `restore the last snapshot: ${commandLine("restore")}`
        : "correct IMAGES in guest.env, or --image",
    });
  if (own) requireRegularDisk(path);
  requireReadableFile(path, "the disk image");
  if (own) repairDiskBitmaps(path);
  const header = own ? readOwnHeader(path) : readImageHeader(path);
  const base = own && header.refersTo === "backing file" ? resolveBackingFile(work, path) : undefined;
  if (own && (header.format !== "qcow2" || (header.refersTo && !base)))
    throw new VmError("io", `refusing the disk ${path}: it is not a standalone qcow2 image`, {
      hint: `a working disk is one qcow2 file; restore the last snapshot: ${commandLine("restore")}`,
    });
  return {
    number,
    bus: image.bus,
    format: own ? (image.format ?? header.format) : chooseFormat(vm, image, path),
    path,
    serial: `disk-${number}`,
    backingAllowed: !own && image.format !== undefined,
    base,
    ...(base && work.mark.arriving && isArriving(path) && { pausesOnError: true }),
    blockDevice: statSync(path).isBlockDevice(),
  };
}

export function resolveShare(
  share: ShareRequest,
  path: string,
  context: Context,
  capabilities: Capabilities,
): Share[] {
  const ownShare = share.path.startsWith("@DATADIR@") || share.path.startsWith("@INDIR@");
  // If check-media sets MEDIA to an empty string.
  if (path === "")
    throw new VmError("noInput", `the share '${share.tag}' has no directory: ${share.path} is empty`, {
      hint: "give an absolute path, or clear the list of shares: --share=",
    });
  const absolute = resolve(context.cwd, path);
  if (ownShare) mkdirSync(absolute, { recursive: true, mode: 0o700 });
  if (!existsSync(absolute) || !statSync(absolute).isDirectory())
    throw new VmError("noInput", `the share '${share.tag}' has no such directory: ${absolute}`, {
      hint: "create the directory, or clear the list of shares: --share=",
    });
  if (!capabilities.devices.has("virtio-9p-pci")) {
    if (!share.path.startsWith("@"))
      throw new VmError(
        "unavailable",
        `this qemu cannot provide the share '${share.tag}': it has no virtio-9p`,
        {
          hint: "install a qemu with virtio-9p, or remove the share",
        },
      );
    warnOnce("the guest has no shares: this qemu has no virtio-9p");
    return [];
  }
  // The guest's root must not create real device nodes and setuid files on the host.
  const mapped = ownShare && share.writable;
  if (mapped) mapLinks(absolute);
  return [
    {
      tag: share.tag,
      path: absolute,
      writable: share.writable,
      security: mapped ? "mapped-file" : "none",
    },
  ];
}
