import { existsSync, mkdirSync, statSync } from "node:fs";
import { isAbsolute, join, resolve } from "node:path";
import type { Loaded } from "../config/load.ts";
import { ARCH, type ArchFacts } from "../machine/arch.ts";
import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { warnOnce } from "../lib/log.ts";
import { expandMacro, type MacroValues } from "../machine/macros.ts";
import type { Arch, Disk, ImageRequest, Machine, Share, ShareRequest } from "../machine/types.ts";
import { defaultCpu, resolveAccel } from "../qemu/accel.ts";
import type { Capabilities } from "../qemu/capabilities.ts";
import { isSince } from "../qemu/features.ts";
import { findBootLoader } from "../qemu/firmware.ts";
import { readImageHeader, readOwnHeader } from "../qemu/image-header.ts";
import { socketIn } from "../process/unix-socket.ts";
import { mapLinks } from "../rescue/mapped-files.ts";
import { isDiskName, WORK } from "../store/layout.ts";
import { requireRegularDisk } from "../store/own-disks.ts";
import { optionsBehind } from "../config/values.ts";
import type { Context } from "./context.ts";
import { resolveDisplay } from "./display.ts";
import { readExtraArgs } from "./extra-args.ts";
import { resolveFirmware } from "./firmware.ts";
import { chooseFormat } from "./image-formats.ts";
import { resolveBackingFile, repairDiskBitmaps } from "./backing-file.ts";
import { type Media } from "./media.ts";
import { lstatOf, requireReadableFile } from "../lib/read-file.ts";
import type { Vm } from "./open.ts";
import type { Workdir } from "../store/workdir.ts";

/** Which CD is in the drive of this run, and whether it is booted. */
export interface Cd {
  path: string;
  first: boolean;
}

/**
 * Settles everything about the machine of one run: images, shares, firmware, ports, accelerator.
 * @throws 66 for what is not there, 69 for what this host lacks, 75 for a port that is taken
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
  refuseOtherKind(vm);
  if (settings.UEFI) requireUefi(arch, capabilities);
  const { accel, problem } = resolveAccel(settings.ACCEL, arch, context.hostArch);
  if (problem) warnOnce(`no KVM: ${problem}; the guest is emulated, which is slow`);
  const paths = [...settings.IMAGES, ...settings.SHARES].map((item) => item.path);
  const macros = await media.macros(paths, work.dir);
  return {
    name: settings.GUESTNAME || "vm",
    arch,
    accel,
    cpu: settings.CPU || defaultCpu(arch, accel),
    sockets: settings.SOCKETS,
    cores: settings.CORES,
    memoryMiB: settings.MEMORY,
    cpuOptions: optionsBehind(vm.raw.CORES),
    memoryOptions: optionsBehind(vm.raw.MEMORY),
    firmware: settings.UEFI ? resolveFirmware(vm, work) : undefined,
    disks: resolveDisks(context, vm, work, macros),
    cdrom: cd && { ...cd, blockDevice: statSync(cd.path).isBlockDevice() },
    seed: lstatOf(join(work.dir, WORK.seed))?.isFile() ? join(work.dir, WORK.seed) : undefined,
    network: settings.USENETDEV ? { forwards: settings.FORWARDS } : undefined,
    shares: settings.SHARES.flatMap((share) => {
      const path = expandMacro(share.path, macros);
      return path === undefined ? [] : resolveShare(share, path, context, capabilities);
    }),
    display: await resolveDisplay(context, vm, work, capabilities),
    kernel: undefined,
    bootLoader: settings.UEFI ? undefined : findBootLoader(arch),
    resumed: false,
    generationId: false,
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

const machineFamilyOf = (arch: Arch): string => (ARCH[arch] as ArchFacts).family ?? arch;

/**
 * A PC can be made another PC, but what is installed for one kind of machine does not run on another.
 * @throws 64
 */
export function refuseOtherKind({ settings: { QEMUARCH }, ownArch = QEMUARCH }: Loaded): void {
  if (machineFamilyOf(QEMUARCH) === machineFamilyOf(ownArch)) return;
  throw new VmError("usage", `--arch=${QEMUARCH}: this VM is of ${ownArch}`, {
    hint: "leave --arch out: it is known for each VM from its creation on",
  });
}

/** @throws 69 where this qemu would take the firmware for something else */
function requireUefi(arch: Arch, { version }: Capabilities): void {
  const { uefiSince }: ArchFacts = ARCH[arch];
  if (!uefiSince || isSince(version, uefiSince)) return;
  throw new VmError(
    "unavailable",
    `UEFI for ${arch} guests needs qemu ${uefiSince.join(".")}, and this is ${version}`,
    {
      hint: `boot by ${ARCH[arch].biosName}: --no-uefi`,
    },
  );
}

/** The port on which qemu-ga listens (qemu's docs/interop/qemu-ga). */
const GUEST_AGENT = "org.qemu.guest_agent.0";

export const resolveFiles = (work: Workdir, consoleLog: string): Machine["files"] => ({
  qmp: socketIn(work.dir, WORK.qmp),
  monitor: socketIn(work.dir, WORK.monitor),
  console: socketIn(work.dir, WORK.console),
  consoleLog: join(work.dir, consoleLog),
});

/** The VM's disks, own and foreign, in boot order. */
export function resolveDisks(context: Context, vm: Vm, work: Workdir, macros: MacroValues): Disk[] {
  const { IMAGES } = vm.settings;
  const fromFiles = IMAGES.length - (context.options.additions.IMAGES?.length ?? 0);
  return IMAGES.map((image, index) => {
    const path = expandMacro(image.path, macros)!;
    return resolveDisk(vm, image, index, resolveImagePath(path, index >= fromFiles, context, work), work);
  });
}

/** [compat] Relative paths mean WORKDIR; typed ones the current directory, then WORKDIR. */
function resolveImagePath(path: string, typed: boolean, context: Context, work: Workdir): string {
  if (isAbsolute(path)) return path;
  const here = resolve(context.cwd, path);
  return typed && existsSync(here) ? here : resolve(work.dir, path);
}

function resolveDisk(vm: Vm, image: ImageRequest, index: number, path: string, work: Workdir): Disk {
  const own = path === join(work.dir, image.path) && isDiskName(image.path);
  if (!lstatOf(path))
    throw new VmError("noInput", `no such disk image: ${path}`, {
      hint: own
        ? `restore the last snapshot: ${commandLine("restore")}`
        : "IMAGES in guest.env, or --image, names it",
    });
  if (own) requireRegularDisk(path);
  requireReadableFile(path, "the disk image");
  if (own) repairDiskBitmaps(path);
  const header = own ? readOwnHeader(path) : readImageHeader(path);
  const base = own && header.refersTo === "backing file" ? resolveBackingFile(work, path) : undefined;
  if (own && (header.format !== "qcow2" || (header.refersTo && !base)))
    throw new VmError("io", `refusing the disk ${path}: it is no qcow2 image that stands alone`, {
      hint: `a working disk is one whole qcow2 file; restore the last snapshot: ${commandLine("restore")}`,
    });
  return {
    bus: image.bus,
    format: own ? (image.format ?? header.format) : chooseFormat(vm, image, path),
    path,
    serial: `disk-${index}`,
    backingAllowed: !own && image.format !== undefined,
    base,
    blockDevice: statSync(path).isBlockDevice(),
  };
}

export function resolveShare(
  share: ShareRequest,
  path: string,
  context: Context,
  capabilities: Capabilities,
): Share[] {
  const ours = share.path.startsWith("@DATADIR@") || share.path.startsWith("@INDIR@");
  // Where check-media sets an empty MEDIA.
  if (path === "")
    throw new VmError("noInput", `the share '${share.tag}' has no directory: ${share.path} is empty`, {
      hint: "name a whole path for it, or clear the list of shares with --share=",
    });
  const absolute = resolve(context.cwd, path);
  if (ours) mkdirSync(absolute, { recursive: true, mode: 0o700 });
  if (!existsSync(absolute) || !statSync(absolute).isDirectory())
    throw new VmError("noInput", `the share '${share.tag}' has no such directory: ${absolute}`, {
      hint: "make the directory, or clear the list of shares with --share=",
    });
  if (!capabilities.devices.has("virtio-9p-pci")) {
    if (!share.path.startsWith("@"))
      throw new VmError(
        "unavailable",
        `this qemu cannot share folders (no virtio-9p), but '${share.tag}' asks for it`,
        {
          hint: "install a qemu with 9p, or leave the share out",
        },
      );
    warnOnce("this qemu cannot share folders (no virtio-9p): the guest has none");
    return [];
  }
  // The guest's root must not make real device nodes and setuid files where we and jobs read.
  const mapped = ours && share.writable;
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
