import { join } from "node:path";
import type { Settings } from "../../config/schema.ts";
import { VmError } from "../../lib/errors.ts";
import { isThing, PACKAGES, type Thing } from "../../lib/packages.ts";
import { ARCH, type ArchFacts } from "../../machine/arch.ts";
import { ARCHES, type Arch } from "../../machine/types.ts";
import { kvmProblem, probeKvm } from "../../qemu/accel.ts";
import type { Capabilities } from "../../qemu/capabilities.ts";
import {
  formatSince,
  isSince,
  LIVE_SNAPSHOTS,
  MINIMUM,
  uefiFeature,
  type QemuFeature,
} from "../../qemu/features.ts";
import { chooseDiskIo, ioUringProblem } from "../../qemu/disk-io.ts";
import { findBootLoader, findFirmware, findNetworkRom } from "../../qemu/firmware.ts";
import { probeQemu } from "../../qemu/probe.ts";
import { findProgram } from "../../process/exec.ts";
import { lstatOf, readSmall } from "../../lib/read-file.ts";
import { WORK } from "../../store/layout.ts";
import { findFirmwareFor, firmwareChoice } from "../../vm/firmware.ts";
import type { Vm } from "../../vm/find.ts";
import { oneLine, type Check } from "./check.ts";

const VIRTIO = [
  "virtio-blk-pci",
  "virtio-net-pci",
  "virtio-rng-pci",
  "virtio-scsi-pci",
  "virtio-serial-pci",
  "virtserialport",
];
const DEVICES = [
  "ich9-ahci",
  "ide-cd",
  "ide-hd",
  "nvme",
  "qemu-xhci",
  "scsi-cd",
  "scsi-hd",
  "usb-kbd",
  "usb-tablet",
];

/** An optional feature of a qemu build. */
interface Feature {
  name: string;
  use: string;
  /** By any VM, or by the configured one. */
  needed: boolean | ((settings: Settings) => boolean);
  /** Absent: of every architecture. */
  applies?(arch: Arch): boolean;
  lacking(capabilities: Capabilities, arch: Arch): readonly string[];
  thing?: Thing;
}

const without =
  (...names: string[]): Feature["lacking"] =>
  ({ devices }) =>
    names.filter((name) => !devices.has(name));

const tooOld = (feature: QemuFeature | undefined, { version }: Capabilities): string[] =>
  !feature || isSince(version, feature.since) ? [] : [`${feature.name} (${formatSince(feature.since)})`];

const FEATURES: readonly Feature[] = [
  { name: "virtio", use: "disks, network and control of guests", needed: true, lacking: without(...VIRTIO) },
  {
    name: "devices",
    use: "disks, CD and screen of guests",
    needed: true,
    lacking: (capabilities, arch) => without(ARCH[arch].card, ...DEVICES)(capabilities, arch),
  },
  {
    name: "sandbox",
    use: "sandbox of qemu",
    needed: true,
    lacking: ({ sandbox }) => (sandbox ? [] : ["seccomp"]),
  },
  {
    name: "spice",
    use: "the guest's screen",
    needed: false,
    lacking: ({ spice }) => (spice ? [] : ["SPICE"]),
    thing: "spice",
  },
  {
    name: "live snapshots",
    use: "backup of a running VM",
    needed: false,
    lacking: (capabilities) => tooOld(LIVE_SNAPSHOTS, capabilities),
  },
  {
    name: "uefi boot",
    use: "guests with UEFI",
    needed: ({ UEFI }) => UEFI,
    applies: (arch) => uefiFeature(arch) !== undefined,
    lacking: (capabilities, arch) => tooOld(uefiFeature(arch), capabilities),
  },
  {
    name: "tpm",
    use: "guests with a TPM",
    needed: ({ TPM }) => TPM !== "",
    applies: (arch) => tpmDevice(arch) !== undefined,
    lacking: (capabilities, arch) => without(tpmDevice(arch)!)(capabilities, arch),
  },
  { name: "9p", use: "shared folders, jobs", needed: false, lacking: without("virtio-9p-pci") },
  {
    name: "pvpanic",
    use: "reports of kernel panics",
    needed: false,
    applies: (arch) => panicDeviceOf(arch) !== undefined,
    lacking: (capabilities, arch) => without(panicDeviceOf(arch)!)(capabilities, arch),
  },
  {
    name: "vmgenid",
    use: "reseeding the random numbers of resumed rescue systems",
    needed: false,
    applies: (arch) => (ARCH[arch] as ArchFacts).warm === true,
    lacking: without("vmgenid"),
  },
];

const panicDeviceOf = (arch: Arch): string | undefined => (ARCH[arch] as ArchFacts).panicDevice;

const tpmDevice = (arch: Arch): string | undefined => (ARCH[arch] as ArchFacts).tpmDevice;

const featuresOf = (arch: Arch): Feature[] => FEATURES.filter(({ applies }) => applies?.(arch) !== false);

/** qemu for each guest architecture; all features of the configured one, only missing features of others. */
export async function checkQemus(settings: Settings, diskPlace: string): Promise<Check[]> {
  const { QEMUARCH } = settings;
  const checks = ARCHES.map((arch) =>
    checkQemu(
      arch,
      arch === QEMUARCH
        ? (found) => [
            ...featuresOf(arch).map(checkFeature(settings, found)),
            checkDiskIo(settings, found, diskPlace),
          ]
        : undefined,
    ),
  );
  return (await Promise.all(checks)).flat();
}

/** @param more checks of the configured one */
async function checkQemu(arch: Arch, more?: (capabilities: Capabilities) => Check[]): Promise<Check[]> {
  const needed = more !== undefined;
  const { binary } = ARCH[arch];
  const common = { name: binary, needed, use: `${arch} guests` };
  let capabilities: Capabilities;
  try {
    // Without the cache: a cached answer would be no diagnosis, and caching writes a file.
    capabilities = await probeQemu(binary, undefined);
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    // One that is installed and does not start needs more than its package.
    const packages = findProgram(binary) === undefined ? { packages: PACKAGES[binary] } : {};
    return [{ ...common, state: "missing", detail: oneLine(error.message), ...packages }];
  }
  const { version } = capabilities;
  if (!isSince(version, MINIMUM.since)) {
    const detail = `${version}, but ${formatSince(MINIMUM.since)} is needed`;
    return [{ ...common, state: "missing", detail, packages: PACKAGES[binary] }];
  }
  if (more) return [{ ...common, state: "ok", detail: version }, ...more(capabilities)];
  const lacking = featuresOf(arch).flatMap((feature) => feature.lacking(capabilities, arch));
  return [
    lacking.length === 0
      ? { ...common, state: "ok", detail: version }
      : { ...common, state: "limited", detail: `${version}, without ${lacking.join(", ")}` },
  ];
}

const checkFeature =
  (settings: Settings, capabilities: Capabilities) =>
  ({ name, use, lacking, thing, ...feature }: Feature): Check => {
    const needed = typeof feature.needed === "boolean" ? feature.needed : feature.needed(settings);
    const absent = lacking(capabilities, settings.QEMUARCH);
    if (absent.length === 0) return { name, state: "ok", needed, use, detail: "" };
    const detail = `this qemu has no ${absent.join(", ")}`;
    return { name, state: "missing", needed, use, detail, ...(thing && { packages: PACKAGES[thing] }) };
  };

/** How disks in a directory are read and written. */
export function checkDiskIo({ DISK_AIO }: Settings, capabilities: Capabilities, directory: string): Check {
  const needed = DISK_AIO === "io_uring";
  const common = { name: "disk-aio", needed, use: "speed of disks" };
  const problem = needed ? ioUringProblem(capabilities) : undefined;
  if (problem !== undefined) return { ...common, state: "missing", detail: problem };
  const aio = chooseDiskIo(DISK_AIO, capabilities, { path: join(directory, "disk-0.img") });
  return { ...common, state: "ok", detail: aio };
}

/** KVM for the configured architecture; required if ACCEL=kvm. */
export function checkKvm({ ACCEL, QEMUARCH }: Settings, hostArch: string): Check {
  const facts = probeKvm(hostArch);
  const problem = kvmProblem(QEMUARCH, facts);
  const needed = ACCEL === "kvm";
  const common = { name: "kvm", needed, use: "guests at full speed" };
  if (problem === undefined) return { ...common, state: "ok", detail: "/dev/kvm" };
  const advice = facts.denied && problem === facts.deviceProblem ? "; join the group kvm" : "";
  if (needed) return { ...common, state: "missing", detail: `${problem}${advice}` };
  return { ...common, state: "limited", detail: `${problem}: guests are emulated, which is slow${advice}` };
}

const SHARED_HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/** The guest's RAM is shared memory, which the kernel gives huge pages by a setting of its own. */
export function checkHugePages(
  { SHARED_RAM }: Pick<Settings, "SHARED_RAM">,
  path = SHARED_HUGE_PAGES,
): Check {
  const common = { name: "huge-pages", needed: false, use: "guests' RAM with KVM, somewhat faster" };
  const chosen = /\[(\w+)\]/.exec(readSmall(path) ?? "")?.[1];
  if (!SHARED_RAM) return { ...common, state: "ok", detail: "SHARED_RAM=off: as of other programs' memory" };
  if (chosen !== undefined && /^(always|advise|within_size|force)$/.test(chosen))
    return { ...common, state: "ok", detail: `shared memory: ${chosen}` };
  return { ...common, state: "limited", detail: `not for shared memory; as root: echo advise > ${path}` };
}

/** Firmware for each architecture that is configured or that an installed qemu can run. */
export const checkFirmwares = (settings: Settings): Check[] =>
  ARCHES.filter((arch) => arch === settings.QEMUARCH || findProgram(ARCH[arch].binary)).flatMap((arch) => {
    const { boots, bootLoaders, secureBoot }: ArchFacts = ARCH[arch];
    const set = arch === settings.QEMUARCH;
    // OVMF_CODE and OVMF_VARS are for the configured architecture.
    const own = set ? firmwareChoice(settings) : { code: "", vars: "" };
    const find = (secure: boolean) => (): string => findFirmware(arch, { ...own, secure }).code.path;
    const checks: Check[] = [];
    if (boots.includes("uefi"))
      checks.push(
        checkFile(
          `uefi-${arch}`,
          `uefi-${arch}`,
          set && settings.UEFI && !settings.SECURE_BOOT,
          `${arch} guests with UEFI`,
          find(false),
        ),
      );
    if (secureBoot)
      checks.push(
        checkFile(
          `secure-boot-${arch}`,
          // A package without enrolled keys is of no use.
          checks.at(-1)?.state === "ok" ? "" : `uefi-${arch}`,
          set && settings.SECURE_BOOT,
          `${arch} guests with Secure Boot`,
          find(true),
        ),
      );
    if (bootLoaders)
      checks.push(
        checkFile(`boot-loader-${arch}`, "u-boot", set && !settings.UEFI, `${arch} guests without UEFI`, () =>
          findBootLoader(arch),
        ),
      );
    return checks;
  });

/** The firmware for the UEFI variables of the current VM. */
export function checkVariables(vm: Vm): Check[] {
  const { work, settings } = vm;
  if (!settings.UEFI || work.state !== "present" || !lstatOf(join(work.dir, WORK.efivars))) return [];
  const find = (): string => findFirmwareFor(vm, work).code.path;
  return [checkFile("uefi-variables", "", true, "UEFI boot of this VM", find)];
}

/** The ROM of network cards. */
export function checkNetboot(): Check {
  const rom = findNetworkRom();
  const common = { name: "netboot", needed: false, use: "booting guests from the network" };
  if (rom !== undefined) return { ...common, state: "ok", detail: rom };
  return { ...common, state: "missing", detail: "no efi-virtio.rom found", packages: PACKAGES.netboot };
}

function checkFile(
  name: string,
  thing: string,
  needed: boolean,
  use: string,
  find: () => string | undefined,
): Check {
  const common = { name, needed, use };
  try {
    return { ...common, state: "ok", detail: find() ?? "" };
  } catch (error) {
    if (!(error instanceof VmError)) throw error;
    const absent = error.code === "unavailable" && isThing(thing) && { packages: PACKAGES[thing] };
    return { ...common, state: "missing", detail: oneLine(error.message), ...absent };
  }
}
