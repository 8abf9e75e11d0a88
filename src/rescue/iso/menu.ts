/** Changes to the boot menus of a rescue ISO: functions over their texts. */

type MenuKind = "isolinux" | "grub";

/** Both boot loaders of a CD use `linux`, but only isolinux has `label`. */
const menuKindOf = (text: string): MenuKind => (/^[ \t]*label[ \t]+\S/im.test(text) ? "isolinux" : "grub");

/** The arguments of one grub command: to the end of the line, or to a `;` or `}` outside quotes and `${…}`. */
const GRUB_ARGUMENTS = String.raw`(?:\\\r?\n|"[^"]*"|'[^']*'|\$\{\w+\}|[^\n;{}"'])*`;

/** `linux`, `linuxefi`, `linux16` and a variable that holds one of them (`$linux`, `${linuxcmd}`). */
const GRUB_KERNEL = new RegExp(
  String.raw`((?:^|[{;])[ \t]*(?:linux(?:efi|16)?|\$linux\w*|\$\{linux\w*\})[ \t]+)(${GRUB_ARGUMENTS})`,
  "gm",
);
const ISOLINUX_KERNEL = /^([ \t]*append[ \t]+)(.*)$/gim;

/** An isolinux `append` of Linux: `append hd0 0` of chain.c32 must stay as it is. */
const OF_LINUX = /(?:^|\s)(?:initrd|automatic|stagename|root)=/;
const OF_MEMTEST = /memtest/i;

/** Key of an argument: its name; for consoles, which may be repeated, also the device. */
export const argumentName = (argument: string): string =>
  /^console=[^,]*/.exec(argument)?.[0] ?? argument.replace(/=.*$/s, "");

function withArguments(line: string, args: readonly string[]): string {
  const [, words = "", tail = ""] = /^(.*?)(\s*)$/s.exec(line)!;
  const ours = new Set(args.map(argumentName));
  const kept = words.replaceAll(/\s+(\S+)/g, (all, word: string) =>
    ours.has(argumentName(word)) ? "" : all,
  );
  return `${kept} ${args.join(" ")}${tail}`;
}

/**
 * Appends arguments to every kernel line of a menu, replacing those of the same name.
 * @param text a complete isolinux.cfg or grub.cfg; lines that load no Linux are unchanged
 * @param args `name=value` or `name`, without white space
 */
export function addKernelArguments(text: string, args: readonly string[]): string {
  if (menuKindOf(text) === "isolinux")
    return text.replaceAll(ISOLINUX_KERNEL, (all, command: string, line: string) =>
      // The space replaces the first word, which `withArguments` expects.
      OF_LINUX.test(line) ? command + withArguments(` ${line}`, args).slice(1) : all,
    );
  return text.replaceAll(GRUB_KERNEL, (all, command: string, line: string) =>
    OF_MEMTEST.test(line) ? all : command + withArguments(line, args),
  );
}

interface MenuEntry {
  /** Its name for `default`. */
  name: string;
  /** Its lines, with the kernel line. */
  body: string;
  /** Can be selected by `name`: a Linux, and not within a submenu. */
  bootable: boolean;
}

/** Entries that do something else than the plain rescue. */
const SPECIAL = /(?:^|\s)(?:forensic|live_rw|ip=\S+)(?=\s|$)/;
const RESCUE = /(?:^|\s)stagename=rescue(?=\s|$)/;

/** The entry to boot: the menu's default if it is a Linux, else the plain rescue, else the first Linux. */
function chooseEntry(entries: readonly MenuEntry[], current: string | undefined): string | undefined {
  const all = entries.filter(({ bootable }) => bootable);
  const plain = all.filter(({ body }) => !SPECIAL.test(body));
  const found =
    all.find(({ name }) => name === current) ??
    plain.find(({ body }) => RESCUE.test(body)) ??
    plain[0] ??
    all[0];
  return found?.name;
}

function isolinuxAtOnce(text: string): string {
  const entries = text.split(/^(?=[ \t]*label[ \t])/im).flatMap((body): MenuEntry[] => {
    const name = /^[ \t]*label[ \t]+(\S+)/i.exec(body)?.[1];
    const append = /^[ \t]*append[ \t]+(.*)$/im.exec(body)?.[1] ?? "";
    return name ? [{ name, body, bootable: OF_LINUX.test(append) }] : [];
  });
  const chosen = chooseEntry(entries, /^[ \t]*default[ \t]+(\S+)/im.exec(text)?.[1]);
  if (chosen === undefined) return text;
  // A graphical menu has its own timeout; without a menu isolinux boots the default at once.
  const menu =
    /^[ \t]*(?:ui|gfxboot|default|prompt|timeout|totaltimeout|ontimeout|menu[ \t]+default)\b.*\n?/gim;
  // timeout: tenths of a second; 0 disables it (syslinux.txt).
  return `default ${chosen}\nprompt 0\ntimeout 1\n${text.replaceAll(menu, "")}`;
}

/** The entries of a grub.cfg outside submenus. */
function grubEntries(text: string): MenuEntry[] {
  const entries: MenuEntry[] = [];
  let depth = 0;
  let index = 0;
  for (const line of text.split("\n")) {
    const bare = line.replaceAll(/"[^"]*"|'[^']*'|\$\{\w+\}|#.*$/g, "");
    const start = /^[ \t]*(menuentry|submenu)\b/.exec(line)?.[1];
    // Entries within an `if` count as well: only braces nest.
    if (start && depth === 0) {
      const id = /(?:--id|\$menuentry_id_option)[= \t]+(?:'([^']*)'|"([^"]*)"|(\S+))/.exec(line);
      const name = id?.[1] ?? id?.[2] ?? id?.[3] ?? String(index);
      entries.push({ name, body: "", bootable: start === "menuentry" });
      index++;
    }
    const entry = entries.at(-1);
    if (entry && (depth > 0 || start)) entry.body += `${line}\n`;
    depth += bare.split("{").length - bare.split("}").length;
  }
  return entries.map((entry) => {
    const kernels = [...entry.body.matchAll(GRUB_KERNEL)].map((match) => match[2]!);
    const bootable = entry.bootable && kernels.some((line) => !OF_MEMTEST.test(line));
    return { ...entry, bootable };
  });
}

function grubAtOnce(text: string): string {
  const current = /^[ \t]*set[ \t]+default=["']?([^"'\s;]+)/m.exec(text)?.[1];
  const chosen = chooseEntry(grubEntries(text), current ?? "0");
  if (chosen === undefined) return text;
  const settings = { default: `'${chosen}'`, timeout: "0" };
  let result = text;
  let header = "";
  for (const [name, value] of Object.entries(settings)) {
    const assignment = new RegExp(String.raw`^([ \t]*set[ \t]+${name}=)(?:"[^"]*"|'[^']*'|[^\s;]*)`, "gm");
    result = result.replaceAll(assignment, (_all, command: string) => command + value);
    header += `set ${name}=${value}\n`;
  }
  // Also at the start, for a menu without it, or with it only in an `if`.
  return result.startsWith(header) ? result : header + result;
}

/** Makes a menu boot its rescue entry at once; a text without such an entry is unchanged. */
export const bootAtOnce = (text: string): string =>
  menuKindOf(text) === "isolinux" ? isolinuxAtOnce(text) : grubAtOnce(text);
