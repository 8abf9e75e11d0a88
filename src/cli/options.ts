import { ARCHES } from "../machine/types.ts";
import type { SettingName } from "../config/schema.ts";

/** What a global option does. */
export type Effect =
  /** Sets a setting to the option's value, or to a fixed one. */
  | { kind: "set"; setting: SettingName; value?: string }
  /** Adds to a list; an empty value clears it. */
  | { kind: "add"; setting: "FORWARDS" | "IMAGES" | "SHARES" }
  | { kind: "hostdir" }
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

/** Every option that stands before the first command, or behind a single one. SPEC: "Command line". */
export const GLOBAL_OPTIONS: readonly OptionSpec[] = [
  { long: "disks", short: "D", value: "TYPE=SIZE,…", effect: set("DISKS"), help: "disks to create" },
  { long: "host", short: "H", value: "ADDRESS", effect: set("HOST"), help: "address the display listens on" },
  { long: "sockets", short: "S", value: "N", effect: set("SOCKETS"), help: "CPU sockets" },
  {
    long: "arch",
    short: "a",
    value: "ARCH",
    effect: set("QEMUARCH"),
    help: `guest architecture: ${ARCHES.join(" ")}`,
  },
  { long: "cores", short: "c", value: "N", effect: set("CORES"), help: "CPU cores" },
  { long: "hostdir", short: "d", value: "DIR", effect: { kind: "hostdir" }, help: "the VM's own directory" },
  {
    long: "forward",
    short: "f",
    value: "RULE",
    effect: { kind: "add", setting: "FORWARDS" },
    help: "add a port forward; empty clears them",
  },
  {
    long: "image",
    short: "i",
    value: "TYPE=[FMT=]PATH",
    effect: { kind: "add", setting: "IMAGES" },
    help: "add an existing image as a disk, for this command line; empty clears these",
  },
  { long: "keep-cd", short: "k", effect: set("KEEPCD", "1"), help: "leave the CD in after the first boot" },
  { long: "no-keep-cd", effect: set("KEEPCD", ""), help: "take the CD out after the first boot" },
  { long: "memory", short: "m", value: "SIZE", effect: set("MEMORY"), help: "memory" },
  { long: "no-colors", short: "n", effect: { kind: "flag", flag: "noColors" }, help: "no colours" },
  {
    long: "port",
    short: "p",
    value: "PORT",
    effect: set("PORT"),
    help: "the display's port; empty: no display",
  },
  {
    long: "rescue",
    short: "r",
    value: "NAME",
    effect: set("RESCUE"),
    help: "rescue profile; auto: make one if there is none",
  },
  {
    long: "share",
    short: "s",
    value: "ID:[rw:]DIR",
    effect: { kind: "add", setting: "SHARES" },
    help: "add a shared folder; empty clears them",
  },
  {
    long: "timeout",
    short: "t",
    value: "SECONDS",
    effect: set("TIMEOUT"),
    help: "time limit of a job, and of run --wait",
  },
  { long: "tmeout", value: "SECONDS", effect: set("TIMEOUT"), help: "", hidden: true },
  { long: "uefi", short: "u", effect: set("UEFI", "1"), help: "boot by UEFI" },
  { long: "no-uefi", effect: set("UEFI", ""), help: "boot by BIOS" },
  { long: "netdev", effect: set("USENETDEV", "1"), help: "have a first network card" },
  { long: "no-netdev", effect: set("USENETDEV", ""), help: "have no first network card" },
  { long: "use-tmpdir", effect: set("INPLACE", ""), help: "working files in TMPDIR" },
  { long: "inplace", effect: set("INPLACE", "1"), help: "working files in HOSTDIR" },
  { long: "no-tmpdir", effect: set("INPLACE", "1"), help: "the same as --inplace" },
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
    help: "show the licences of the program and of all in it",
  },
  { long: "help", short: "h", effect: { kind: "flag", flag: "help" }, help: "show this help" },
];
