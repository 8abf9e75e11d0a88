import { ARCH } from "../machine/arch.ts";
import type { SmbiosTable } from "../machine/smbios.ts";
import type { Machine } from "../machine/types.ts";
import type { Capabilities } from "./capabilities.ts";
import { buildDiskArgs, buildUsbArgs, countPlaces } from "./devices/disk.ts";
import { buildChannelArgs } from "./devices/channel.ts";
import { buildDisplayArgs } from "./devices/display.ts";
import { buildFirmwareArgs } from "./devices/firmware.ts";
import { buildNicArgs, firstFdBehind } from "./devices/nic.ts";
import { buildRamArgs, ramOption } from "./devices/ram.ts";
import { buildShareArgs } from "./devices/share.ts";
import { buildTpmArgs } from "./devices/tpm.ts";
import { buildPortArgs, machineTypeOf, placed, placeOf } from "./layout.ts";
import { escapeCommas, socketChardev } from "./text.ts";

/**
 * Pure: builds the command line of a machine, whose ports, paths and firmware are resolved.
 * @returns qemu's program and its arguments
 */
export function buildQemuArgv(machine: Machine, capabilities: Capabilities): string[] {
  const facts = ARCH[machine.arch];
  const firmware = machine.firmware ? buildFirmwareArgs(machine.firmware) : undefined;
  const disks = [...buildUsbArgs(machine), ...buildDiskArgs(machine)];
  return [
    facts.binary,
    "-name",
    `guest=${escapeCommas(machine.name)}`,
    "-nodefaults",
    "-no-user-config",
    ...buildSandboxArgs(machine.extraArgs),
    ...(firmware?.args ?? []),
    "-machine",
    `${machineTypeOf(machine)}${firmware?.machineOptions ?? ""}${ramOption(machine)}`,
    ...buildProcessorArgs(machine),
    "-m",
    [`${machine.memoryMiB}M`, machine.memoryOptions].filter(Boolean).join(","),
    ...buildRamArgs(machine),
    // Boot only devices with a bootindex: no floppy.
    "-boot",
    "strict=on",
    ...(machine.uuid === undefined ? [] : ["-uuid", machine.uuid]),
    ...(machine.endOnReset ? ["-no-reboot"] : []),
    ...(machine.bootLoader === undefined ? [] : ["-kernel", machine.bootLoader]),
    ...buildKernelArgs(machine.kernel),
    ...(machine.resumed ? buildResumedArgs(machine) : []),
    ...buildControlArgs(machine.files),
    ...buildPortArgs(machine, countPlaces(machine)),
    "-object",
    "rng-random,id=rng0,filename=/dev/urandom",
    "-device",
    `virtio-rng-pci,rng=rng0${placed(placeOf(machine, "rng"))}`,
    ...buildChannelArgs(machine),
    ...buildGenerationArgs(machine),
    ...machine.smbios.flatMap(buildSmbiosArgs),
    ...(machine.tpm ? buildTpmArgs(machine.tpm, firstFdBehind(machine.nics)) : []),
    ...buildPanicArgs(machine),
    ...(machine.resumed ? [] : disks),
    ...machine.nics.flatMap((nic) => buildNicArgs(machine, nic)),
    ...buildShareArgs(machine),
    // What the saved machine does not have is behind what it has.
    ...(machine.resumed ? disks : []),
    ...buildDisplayArgs(machine, capabilities),
    ...machine.extraArgs,
  ];
}

/** What decides on a machine's processors. */
export type Processors = Pick<Machine, "accel" | "cpu" | "sockets" | "cores" | "cpuOptions">;

export const buildProcessorArgs = (machine: Processors): string[] => [
  "-accel",
  machine.accel === "tcg" ? "tcg,thread=multi" : machine.accel,
  "-cpu",
  machine.cpu,
  "-smp",
  smpOf(machine),
];

const buildSmbiosArgs = ({ type, fields }: SmbiosTable): string[] => [
  "-smbios",
  [`type=${type}`, ...fields.map(([name, value]) => `${name}=${escapeCommas(value)}`)].join(","),
];

/**
 * qemu only reports a panic: what happens next, such as a reboot, is the guest's choice (`kernel.panic`). A device among
 * the user's own arguments replaces this one: qemu takes only one.
 */
function buildPanicArgs(machine: Machine): string[] {
  const { panicDevice, extraArgs } = machine;
  if (panicDevice === undefined || extraArgs.some((word) => /^pvpanic\b/.test(word))) return [];
  const place = panicDevice === "pvpanic" ? undefined : placeOf(machine, "panic");
  return ["-device", `${panicDevice}${placed(place)}`, "-action", "panic=none"];
}

/** Not beside one of the user's own arguments: qemu takes only one. */
function buildGenerationArgs({ generationId, extraArgs }: Machine): string[] {
  if (generationId === undefined || extraArgs.some((word) => /^vmgenid\b/.test(word))) return [];
  return ["-device", `vmgenid,guid=${generationId},id=generation0`];
}

/**
 * The saved state of a kernel that qemu booted includes the option ROM by which it did (hw/i386/x86.c: PVH for an ELF
 * image, else the Linux loader): the machine must have it, too.
 */
const buildResumedArgs = ({ firmware }: Machine): string[] => [
  "-option-rom",
  firmware ? "linuxboot_dma.bin" : "pvh.bin",
  "-S",
  "-incoming",
  "defer",
];

const buildKernelArgs = (kernel: Machine["kernel"]): string[] =>
  kernel ? ["-kernel", kernel.image, "-initrd", kernel.initrd, "-append", kernel.append] : [];

/** QMP sockets (each serves one client at a time), the event log, and the serial console with its log. */
function buildControlArgs(files: Machine["files"]): string[] {
  const consoleLog = `logfile=${escapeCommas(files.consoleLog)},logappend=off`;
  return [
    "-chardev",
    socketChardev("qmp0", files.qmp),
    "-mon",
    "chardev=qmp0,mode=control",
    "-chardev",
    socketChardev("qmp1", files.monitor),
    "-mon",
    "chardev=qmp1,mode=control",
    ...(files.backup
      ? ["-chardev", socketChardev("qmp2", files.backup), "-mon", "chardev=qmp2,mode=control"]
      : []),
    ...(files.events
      ? [
          "-chardev",
          `pipe,id=events0,path=${escapeCommas(files.events)}`,
          "-mon",
          "chardev=events0,mode=control",
        ]
      : []),
    "-chardev",
    `${socketChardev("console0", files.console)},${consoleLog}`,
    "-serial",
    "chardev:console0",
  ];
}

/** Networks that start a helper program or a script, which `spawn=deny` forbids. */
const NEEDS_HELPER = /^(type=|\{.*"type"\s*:\s*")?(bridge|tap|vhost-vdpa|passt)\b/;

/** The argument by which qemu starts such a program. */
export const findHelper = (extraArgs: readonly string[]): string | undefined =>
  extraArgs.find(
    (word, index) => NEEDS_HELPER.test(word) && /^--?(netdev|nic|net)$/.test(extraArgs[index - 1] ?? ""),
  );

/** As strict as the user's extra arguments allow; a `-sandbox` among them replaces it. */
function buildSandboxArgs(extraArgs: readonly string[]): string[] {
  if (extraArgs.some((word) => /^--?sandbox$/.test(word))) return [];
  return [
    "-sandbox",
    findHelper(extraArgs) !== undefined
      ? "on,obsolete=deny"
      : "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
  ];
}

/** With the user's own options, qemu computes the number of CPUs. */
function smpOf({ sockets, cores, cpuOptions }: Processors): string {
  const topology = `sockets=${sockets},cores=${cores}`;
  if (!cpuOptions) return `${sockets * cores},${topology},threads=1`;
  return [topology, ...(/(^|,)threads=/.test(cpuOptions) ? [] : ["threads=1"]), cpuOptions].join(",");
}
