import { bashAssignment } from "../config/assignment.ts";
import { buildDefaults } from "../config/defaults.ts";
import type { SettingValue } from "../config/shell-expand.ts";
import { SCHEMA, SETTING_NAMES, type SettingName } from "../config/schema.ts";
import { VmError } from "../lib/errors.ts";
import { SYSTEM_LIBEXEC } from "../rescue/libexec.ts";
import type { Context } from "../vm/context.ts";

/** Settings of one VM, which must be unique: not in a file for all VMs. */
const ONE_VM: readonly SettingName[] = [
  "GUESTNAME",
  "ISO",
  "UUID",
  "UUID_FORMER",
  "TEMPLATE",
  "LAYOUT",
  "MAC",
];

/** In the order of the file. Settings of no group follow at the end, so that none is left out. */
const GROUPS: readonly (readonly [title: string, names: RegExp])[] = [
  [
    "New VMs (later: the VM's guest.env)",
    /^(QEMUARCH|SOCKETS|CORES|MEMORY|UEFI|SECURE_BOOT|TPM|KEEPCD|DISKS|IMAGES|IMAGE_FORMATS|IMAGE_NUMBERS|CONTROLLER_PLACES|SHARES|ACCEL|CPU|DISK_AIO|SHARED_RAM|SMBIOS|LABELS)$/,
  ],
  ["Limits of each VM", /^(CPU_QUOTA|MEMORY_MAX|IO_WEIGHT|SLICE|DISK_LIMITS)$/],
  ["Network", /^(USENETDEV|NETWORKS|NETBOOT.*|FORWARDS|SSH_USER)$/],
  ["The screen", /^(HOST|PORT|DISPLAY_PROTOCOL|SPICE_.*)$/],
  ["Snapshots", /^(PIGZ_LEVEL|SNAPSHOT_.*)$/],
  ["Snapshots that prune keeps", /^KEEP_/],
  ["Jobs and the rescue system", /^(RESCUE.*|TIMEOUT|SSHKEYS)$/],
  ["Places and programs", /^(INPLACE|PROFILES|LIBEXEC|MEDIA_.*|OVMF_.*|STOP_TIMEOUT|HOOK_TIMEOUT|JAIL)$/],
  ["Colours on a terminal", /^CLR_/],
  ["More", /^/],
];

/** Built-in values that depend on the host. */
const DEPENDS: Partial<Record<SettingName, string>> = {
  QEMUARCH: "; default: that of this host",
  RESCUE: "; default: by the architecture",
  LIBEXEC: "; default: those of a package, else ~/.cache/vm",
};

/** @throws 64 for arguments that cannot be combined with `--example` */
export function refuseOthers(args: Record<string, unknown>): void {
  if (args.json !== true && args.name === undefined) return;
  throw new VmError("usage", "config: --example cannot be combined with other arguments", {
    hint: "leave the others out: it prints all settings as a settings file",
  });
}

export const printExample = (context: Context): void => context.print(buildExample(context.prog));

/** A settings file for all VMs that changes nothing: every line is a comment with a built-in value. */
export function buildExample(prog: string): string {
  // The same on every host: the file is part of packages.
  const defaults = buildDefaults({ prog, home: "~", hostArch: "x86_64", libexec: SYSTEM_LIBEXEC });
  const left = new Set(SETTING_NAMES.filter((name) => !ONE_VM.includes(name)));
  const groups = GROUPS.flatMap(([title, pattern]) => {
    const names = [...left].filter((name) => pattern.test(name));
    for (const name of names) left.delete(name);
    return names.length > 0 ? [`# --- ${title}\n`, ...names.map((name) => entry(name, defaults[name]))] : [];
  });
  return [
    `# Settings of ${prog} for all VMs: /etc/${prog}.conf for all users, ~/.config/${prog}.conf for one user.\n` +
      "# Overridden by a VM's guest.env and the command line.\n" +
      "# Lines of bash assignments. The comments show the built-in values; uncomment a line to change one.\n" +
      `# See also: ${prog} man, SETTINGS\n`,
    ...groups,
  ].join("\n");
}

const entry = (name: SettingName, value: SettingValue): string =>
  `# ${SCHEMA[name].help}${DEPENDS[name] ?? ""}\n#${assignment(name, value)}\n`;

/** A quoted tilde would not expand to the home directory. */
function assignment(name: SettingName, value: SettingValue): string {
  const line = bashAssignment(name, value);
  return line.replaceAll(/'(~\/[\w./-]+)'/g, "$1");
}
