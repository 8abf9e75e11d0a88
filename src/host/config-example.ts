import { bashAssignment } from "../config/assignment.ts";
import { buildDefaults } from "../config/defaults.ts";
import type { SettingValue } from "../config/shell-expand.ts";
import { SCHEMA, SETTING_NAMES, type SettingName } from "../config/schema.ts";
import { VmError } from "../lib/errors.ts";
import { SYSTEM_LIBEXEC } from "../rescue/libexec.ts";
import type { Context } from "../vm/context.ts";

/** These belong to one VM: in a file for all they would make twins. */
const ONE_VM: readonly SettingName[] = ["GUESTNAME", "ISO", "UUID", "UUID_FORMER"];

/** In the order of the file. What fits nowhere stands at the end, so that no setting is ever left out. */
const GROUPS: readonly (readonly [title: string, names: RegExp])[] = [
  [
    "VMs that are made from now on (a VM's guest.env says more)",
    /^(QEMUARCH|SOCKETS|CORES|MEMORY|UEFI|KEEPCD|DISKS|IMAGES|IMAGE_FORMATS|SHARES|ACCEL|CPU)$/,
  ],
  ["Network", /^(USENETDEV|FORWARDS|SSH_USER)$/],
  ["The screen", /^(HOST|PORT|DISPLAY_PROTOCOL|SPICE_.*)$/],
  ["Snapshots", /^(PIGZ_LEVEL|SNAPSHOT_.*)$/],
  ["Snapshots that prune keeps", /^KEEP_/],
  ["Jobs and the rescue system", /^(RESCUE.*|TIMEOUT|SSHKEYS)$/],
  ["Places and programs", /^(INPLACE|PROFILES|LIBEXEC|MEDIA_.*|OVMF_.*|STOP_TIMEOUT)$/],
  ["Colours on a terminal", /^CLR_/],
  ["More", /^/],
];

/** Where the built-in value is another one on another host. */
const DEPENDS: Partial<Record<SettingName, string>> = {
  QEMUARCH: "; built in: this host's",
  RESCUE: "; built in: by the architecture",
  LIBEXEC: "; built in: where a package has them, else ~/.cache/vm",
};

/** @throws 64 for what has no meaning beside `--example` */
export function refuseOthers(args: Record<string, unknown>): void {
  if (args.json !== true && args.name === undefined) return;
  throw new VmError("usage", "config: --example stands alone", {
    hint: "it prints all settings, in the language of the settings files",
  });
}

export const printExample = (context: Context): void => context.print(buildExample(context.prog));

/** A settings file for all VMs that changes nothing: every line is a comment, and says a built-in value. */
export function buildExample(prog: string): string {
  // The same file on every host: it is part of packages.
  const defaults = buildDefaults({ prog, home: "~", hostArch: "x86_64", libexec: SYSTEM_LIBEXEC });
  const left = new Set(SETTING_NAMES.filter((name) => !ONE_VM.includes(name)));
  const groups = GROUPS.flatMap(([title, pattern]) => {
    const names = [...left].filter((name) => pattern.test(name));
    for (const name of names) left.delete(name);
    return names.length > 0 ? [`# --- ${title}\n`, ...names.map((name) => entry(name, defaults[name]))] : [];
  });
  return [
    `# Settings of ${prog} for all VMs: /etc/${prog}.conf for everybody, ~/.config/${prog}.conf for one user.\n` +
      "# Stronger than these are a VM's own guest.env and the command line.\n" +
      "# Lines of bash assignments. What is here in comments are the built-in values; take the # away to change one.\n" +
      `# More about them: ${prog} man, SETTINGS\n`,
    ...groups,
  ].join("\n");
}

const entry = (name: SettingName, value: SettingValue): string =>
  `# ${SCHEMA[name].help}${DEPENDS[name] ?? ""}\n#${assignment(name, value)}\n`;

/** A tilde is the reader's home only where it is not quoted. */
function assignment(name: SettingName, value: SettingValue): string {
  const line = bashAssignment(name, value);
  return line.replaceAll(/'(~\/[\w./-]+)'/g, "$1");
}
