import { existsSync } from "node:fs";
import { isAbsolute, join, resolve } from "node:path";
import { loadProfile, type Loaded } from "../config/load.ts";
import type { SettingName } from "../config/schema.ts";
import { commandLine, programLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import { warnOnce } from "../lib/log.ts";
import { expandMacro } from "../machine/macros.ts";
import { ARCH } from "../machine/arch.ts";
import type { Arch, Disk, Machine, ShareRequest } from "../machine/types.ts";
import { socketIn } from "../process/unix-socket.ts";
import { archesOfKernel } from "../rescue/kernel-arch.ts";
import { defaultCpu, resolveAccel } from "../qemu/accel.ts";
import type { Capabilities } from "../qemu/capabilities.ts";
import { findBootLoader } from "../qemu/firmware.ts";
import { RESCUE, WORK } from "../store/layout.ts";
import type { Context } from "../vm/context.ts";
import { enforcesSecureBoot, resolveFirmware } from "../vm/firmware.ts";
import type { Confine } from "../vm/jail.ts";
import { refuseOtherFamily, resolveDisks, resolveFiles, resolveShare, resolveSmbios } from "../vm/machine.ts";
import { requireCd, type Media } from "../vm/media.ts";
import { requireReadableFile } from "../lib/read-file.ts";
import { sourcesOf, type Vm } from "../vm/find.ts";
import { type Workdir } from "../store/workdir.ts";

/** RESCUE: the default rescue, built if it is missing. */
export const AUTO_RESCUE = "auto";

/** Boot medium of the rescue: a CD, or a kernel with an initramfs built by this program. */
export type RescueSystem =
  | { kind: "cd"; iso: string }
  | { kind: "own"; kernel: string; vmlinux: string | undefined; initrd: string };

/** A rescue profile, with its settings merged from all layers. */
export interface Rescue extends Loaded {
  name: string;
  directory: string;
  system: RescueSystem;
}

/** Everything that a job's run needs, resolved. */
export interface RescueRun {
  job: string;
  rescue: Rescue;
  machine: Machine;
  capabilities: Capabilities;
  confine: Confine;
  /** The run is a step of another command: its start is not reported. */
  quiet?: true;
  /** What a stop signal does, for the message; default: stop the job. */
  stopping?: string | undefined;
  /** Start of the error message if there is no space for its disks; absent: it is paused until there is. */
  cannot?: string;
  /** Called when the job has started. */
  onStarted?: (() => void) | undefined;
}

/** The shares of each job: its input and its output. */
const JOB_SHARES: readonly ShareRequest[] = [
  { tag: "in", writable: false, path: "@INDIR@" },
  { tag: "out", writable: true, path: "@DATADIR@" },
];

/** The last five lines save a tenth of the rescue's boot time under TCG. */
const APPEND = [
  // A panic reboots, which ends qemu (-no-reboot), rather than hangs.
  "quiet panic=-1",
  "scsi_mod.scan=sync random.trust_cpu=on usb_storage.delay_use=0",
  // Self-tests of ciphers, which the distribution has run.
  "cryptomgr.notests initcall_blacklist=crypto_kdf108_init",
  // root is the only user of the rescue: hardening against other users is of no use.
  "mitigations=off init_on_alloc=0 hardened_usercopy=off rodata=off",
  // The same of access by labels and paths, and of statistics.
  "cgroup_disable=memory lsm=capability psi=0",
  // Code at the same addresses in each process is translated once.
  "norandmaps",
].join(" ");

/** Virtio-serial ports: the runner receives `stop` on one, programs in the rescue ask the user on another; one serves files. */
export const CHANNELS = [
  { name: "vm.control.0", socket: WORK.control },
  { name: "vm.ask.0", socket: WORK.ask },
  { name: "vm.files.0", socket: WORK.files },
] as const;

/**
 * The card of a rescue's machine. Where no announcements are configured, qemu 7.2 crashes at the reset of a card with a guest
 * that can make them (virtio_net_reset, by a null timer).
 */
export const rescueNic = (forwards: string[]): Machine["nics"][number] => ({
  number: 1,
  announced: false,
  mac: undefined,
  link: "up",
  network: { kind: "user" },
  forwards,
});

/** Is it a share of each job? */
export const isJobShare = ({ tag }: Machine["shares"][number]): boolean => tag === "in" || tag === "out";

/**
 * Finds the rescue RESCUE.
 * @throws 66 if there is none, or one of its files is missing
 */
export async function findRescue(context: Context, vm: Vm, media: Media): Promise<Rescue> {
  const name = vm.settings.RESCUE;
  const directory = join(vm.settings.PROFILES, name);
  const loaded = await loadProfile(
    sourcesOf(context, vm.hostdir, vm.work),
    vm,
    join(directory, RESCUE.guestEnv),
  );
  const { RESCUE_ISO, RESCUE_KERNEL, RESCUE_VMLINUX, RESCUE_INITRD } = loaded.settings;
  const file = (setting: SettingName, path: string): string => {
    const place = isAbsolute(path) ? path : resolve(directory, path);
    return requireReadableFile(place, `the rescue's ${setting}`);
  };
  const found = (system: RescueSystem): Rescue => ({ ...loaded, name, directory, system });
  if (RESCUE_KERNEL !== "" && RESCUE_INITRD !== "")
    return found({
      kind: "own",
      kernel: file("RESCUE_KERNEL", RESCUE_KERNEL),
      vmlinux: findUncompressed(directory, RESCUE_VMLINUX),
      initrd: file("RESCUE_INITRD", RESCUE_INITRD),
    });
  if (RESCUE_ISO !== "") {
    const beside = resolve(directory, RESCUE_ISO);
    return found({
      kind: "cd",
      iso: existsSync(beside) ? requireCd(file("RESCUE_ISO", beside)) : await media.findIso(RESCUE_ISO),
    });
  }
  throw new VmError("noInput", `there is no rescue system '${name}' in ${vm.settings.PROFILES}`, {
    hint: `build one: ${programLine("rescue", "build", ...(name === `rescue-${context.hostArch}` ? [] : [`--name=${name}`]))}; or let the job build it: --rescue=auto`,
  });
}

/** @throws 78 for a rescue of another architecture, which would only reach the time limit */
function refuseOtherKernel(name: string, kernel: string, arch: Arch): void {
  const arches = archesOfKernel(kernel);
  // An unknown kernel may be the user's own, and suitable.
  if (arches.length === 0 || arches.includes(arch)) return;
  const found = arches.join(" or ");
  throw new VmError(
    "config",
    `cannot use the rescue ${name} for ${arch} guests: its kernel is for ${found}`,
    {
      hint: `omit --rescue to use rescue-${arch}; build it: ${commandLine("rescue", "build")}`,
    },
  );
}

/** The uncompressed kernel; undefined if it could not be uncompressed: then the other one is booted. */
function findUncompressed(directory: string, path: string): string | undefined {
  const place = resolve(directory, path);
  return path !== "" && existsSync(place)
    ? requireReadableFile(place, "the rescue's RESCUE_VMLINUX")
    : undefined;
}

/** RESCUE_FORWARDS, or else FORWARDS; those of the command line are added, an empty one clears all. */
function forwardsOf(context: Context, { settings }: Rescue): string[] {
  const typed = context.options.additions.FORWARDS ?? [];
  const cleared = context.options.settings.FORWARDS !== undefined;
  const own = cleared ? [] : settings.RESCUE_FORWARDS;
  if (own.length === 0) return settings.FORWARDS;
  return [...own, ...settings.FORWARDS.slice(settings.FORWARDS.length - typed.length)];
}

/**
 * Resolves the rescue's machine: disks and firmware are the guest's, everything else is its own.
 * @param alone the disks of a machine without firmware, network and further shares
 */
export async function resolveRescueMachine(
  context: Context,
  vm: Vm,
  work: Workdir,
  media: Media,
  rescue: Rescue,
  capabilities: Capabilities,
  alone?: readonly Disk[],
): Promise<Machine> {
  const { settings, system } = rescue;
  refuseOtherFamily(vm);
  if (system.kind === "own") refuseOtherKernel(rescue.name, system.kernel, settings.QEMUARCH);
  const { accel, problem } = resolveAccel(settings.ACCEL, settings.QEMUARCH, context.hostArch);
  if (problem && !alone) warnOnce(`cannot use KVM: ${problem}; the rescue is emulated, which is slow`);
  const shares = alone ? JOB_SHARES : settings.RESCUE_SHARES;
  const macros = await media.macros(
    [...(alone ? [] : settings.IMAGES), ...shares].map((item) => item.path),
    work.dir,
  );
  if (!capabilities.devices.has("virtio-9p-pci"))
    throw new VmError("unavailable", "cannot run jobs: this qemu has no virtio-9p", {
      hint: "install a qemu with 9p",
    });
  // Under Secure Boot a kernel loads no unsigned modules, as those of the rescue are.
  const direct =
    system.kind === "own" || (ARCH[settings.QEMUARCH].boots as readonly string[]).includes("bios");
  const firmware =
    !alone && settings.UEFI && !(direct && enforcesSecureBoot(vm, work))
      ? resolveFirmware(vm, work)
      : undefined;
  const disks = alone ? [...alone] : resolveDisks(context, vm, work, macros, capabilities);
  return {
    name: `${settings.GUESTNAME || "vm"}: ${rescue.name}`,
    arch: settings.QEMUARCH,
    layout: 0,
    uuid: undefined,
    accel,
    cpu: settings.CPU || defaultCpu(settings.QEMUARCH, accel),
    sockets: settings.RESCUE_SOCKETS,
    cores: settings.RESCUE_CORES,
    memoryMiB: settings.RESCUE_MEMORY,
    ram: undefined,
    firmware,
    // The secrets in it are for the guest's own system.
    tpm: undefined,
    disks,
    controllerPlaces: [],
    cdrom: system.kind === "cd" ? { path: system.iso, first: true } : undefined,
    seed: undefined,
    nics:
      alone || (rescue.origins.USENETDEV.kind === "option" && !settings.USENETDEV)
        ? []
        : [rescueNic(forwardsOf(context, rescue))],
    netboot: { order: "off", directory: undefined, file: undefined },
    shares: shares.flatMap((share) => {
      const path = expandMacro(share.path, macros);
      return path === undefined ? [] : resolveShare(share, path, context, capabilities);
    }),
    display: { kind: system.kind === "cd" ? "none" : "serial" },
    kernel:
      system.kind === "cd"
        ? undefined
        : {
            // OVMF does not boot ELF.
            image: firmware ? system.kernel : (system.vmlinux ?? system.kernel),
            initrd: system.initrd,
            append: `${ARCH[settings.QEMUARCH].kernelAppend} ${APPEND} rescue.port rescue.disks=${disks.length}`,
          },
    bootLoader: firmware || system.kind === "own" ? undefined : findBootLoader(settings.QEMUARCH),
    resumed: false,
    generationId: system.kind === "own" && capabilities.devices.has("vmgenid") ? "auto" : undefined,
    smbios: alone ? [] : resolveSmbios(settings),
    // Its panic is seen by the reset.
    panicDevice: undefined,
    channels: CHANNELS.map(({ name, socket }) => ({ name, socket: socketIn(work.dir, socket) })),
    files: resolveFiles(work, WORK.rescueConsoleLog),
    endOnReset: true,
    extraArgs: [],
  };
}
