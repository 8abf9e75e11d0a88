import { ARCHES } from "../machine/types.ts";
import type { AddedList, SettingName } from "../config/schema.ts";

/** What a global option does. */
export type Effect =
  /** Sets a setting to the option's value, or to a fixed one. */
  | { kind: "set"; setting: SettingName; value?: string }
  /** Adds to a list; an empty value clears it. */
  | { kind: "add"; setting: AddedList }
  | { kind: "hostdir" }
  /** Selects VMs by a label. */
  | { kind: "label" }
  | { kind: "flag"; flag: "help" | "version" | "licenses" | "noColors" | "debug" };

export interface OptionSpec {
  long: string;
  short?: string;
  /** The value's name in the help; absent for options without one. */
  value?: string;
  effect: Effect;
  help: string;
  /** Understood, but not listed and not abbreviated. */
  hidden?: true;
  /** Not abbreviated. */
  whole?: true;
}

const set = (setting: SettingName, value?: string): Effect =>
  value === undefined ? { kind: "set", setting } : { kind: "set", setting, value };

/** Options before the first command, or after a single one. */
export const GLOBAL_OPTIONS: readonly OptionSpec[] = [
  { long: "disks", short: "D", value: "TYPE=SIZE,…", effect: set("DISKS"), help: "set the disks to create" },
  {
    long: "host",
    short: "H",
    value: "ADDRESS",
    effect: set("HOST"),
    help: "set the address the display listens on",
  },
  { long: "sockets", short: "S", value: "N", effect: set("SOCKETS"), help: "set the number of CPU sockets" },
  {
    long: "arch",
    short: "a",
    value: "ARCH",
    effect: set("QEMUARCH"),
    help: `set the guest architecture: ${ARCHES.join(" ")}`,
  },
  {
    long: "cores",
    short: "c",
    value: "N",
    effect: set("CORES"),
    help: "set the number of CPU cores per socket",
  },
  {
    long: "hostdir",
    short: "d",
    value: "DIR",
    effect: { kind: "hostdir" },
    help: "use the VM in DIR instead of the current directory",
  },
  {
    long: "forward",
    short: "f",
    value: "RULE",
    effect: { kind: "add", setting: "FORWARDS" },
    help: "add a port forward; empty: clear the list",
  },
  {
    long: "image",
    short: "i",
    value: "TYPE=[FMT=]PATH",
    effect: { kind: "add", setting: "IMAGES" },
    help: "attach an existing image as a disk, for this command line; empty: clear the list",
  },
  {
    long: "label",
    value: "LABEL",
    effect: { kind: "label" },
    help: "run the commands for each VM with this label, one after another",
    whole: true,
  },
  { long: "keep-cd", short: "k", effect: set("KEEPCD", "1"), help: "leave the CD in after the first boot" },
  { long: "no-keep-cd", effect: set("KEEPCD", ""), help: "take the CD out after the first boot" },
  { long: "memory", short: "m", value: "SIZE", effect: set("MEMORY"), help: "set the memory size" },
  { long: "no-colors", short: "n", effect: { kind: "flag", flag: "noColors" }, help: "disable colours" },
  {
    long: "port",
    short: "p",
    value: "PORT",
    effect: set("PORT"),
    help: "set the display's port; empty: no display",
  },
  {
    long: "rescue",
    short: "r",
    value: "NAME",
    effect: set("RESCUE"),
    help: "use this rescue profile; auto: build one if there is none",
  },
  {
    long: "share",
    short: "s",
    value: "ID:[rw:]DIR",
    effect: { kind: "add", setting: "SHARES" },
    help: "add a shared folder; empty: clear the list",
  },
  {
    long: "smbios",
    value: "type=N,…",
    effect: { kind: "add", setting: "SMBIOS" },
    help: "add SMBIOS (DMI) fields: type=1,manufacturer=ACME,serial=7",
    whole: true,
  },
  {
    long: "timeout",
    short: "t",
    value: "SECONDS",
    effect: set("TIMEOUT"),
    help: "limit the time of a job, exec, run, stop or verify --boot",
  },
  { long: "tmeout", value: "SECONDS", effect: set("TIMEOUT"), help: "", hidden: true },
  { long: "uefi", short: "u", effect: set("UEFI", "1"), help: "boot by UEFI" },
  { long: "no-uefi", effect: set("UEFI", ""), help: "boot by BIOS" },
  {
    long: "secure-boot",
    effect: set("SECURE_BOOT", "on"),
    help: "boot only signed programs, by UEFI",
    whole: true,
  },
  {
    long: "no-secure-boot",
    effect: set("SECURE_BOOT", ""),
    help: "use firmware that does not require signed programs",
    whole: true,
  },
  { long: "tpm", effect: set("TPM", "2.0"), help: "add a TPM 2.0 (swtpm)", whole: true },
  { long: "no-tpm", effect: set("TPM", ""), help: "leave the TPM out, and keep its state", whole: true },
  {
    long: "net",
    value: "NETWORK",
    effect: { kind: "add", setting: "NETWORKS" },
    help: "add a network card: user, passt, bridge=, tap= or net=NAME; empty: clear the list",
    whole: true,
  },
  { long: "netdev", effect: set("USENETDEV", "1"), help: "enable the first network card" },
  { long: "no-netdev", effect: set("USENETDEV", ""), help: "disable the first network card" },
  {
    long: "netboot",
    effect: set("NETBOOT", "first"),
    help: "boot from the network first",
    whole: true,
  },
  {
    long: "no-netboot",
    effect: set("NETBOOT", "last"),
    help: "boot from the network after the CD and the disks",
    whole: true,
  },
  { long: "use-tmpdir", effect: set("INPLACE", ""), help: "keep working files in TMPDIR" },
  { long: "inplace", effect: set("INPLACE", "1"), help: "keep working files in HOSTDIR" },
  { long: "no-tmpdir", effect: set("INPLACE", "1"), help: "keep working files in HOSTDIR, as --inplace" },
  {
    long: "jail",
    effect: set("JAIL", "auto"),
    help: "confine qemu, as far as this host can",
    whole: true,
  },
  {
    long: "no-jail",
    effect: set("JAIL", "off"),
    help: "start qemu unconfined",
    whole: true,
  },
  {
    long: "debug",
    effect: { kind: "flag", flag: "debug" },
    help: "show internal details of errors",
    whole: true,
  },
  { long: "version", short: "v", effect: { kind: "flag", flag: "version" }, help: "show the version" },
  {
    long: "licenses",
    effect: { kind: "flag", flag: "licenses" },
    help: "show the licences of the program and its components",
  },
  { long: "help", short: "h", effect: { kind: "flag", flag: "help" }, help: "show this help" },
];
