import { isOwnName, MAX_OWN_NAME_BYTES } from "../lib/text.ts";
import { isUuid } from "../lib/uuid.ts";
import { parseArch } from "../machine/arch.ts";
import {
  DISK_SYNTAX,
  FORWARD_SYNTAX,
  IMAGE_FORMAT_SYNTAX,
  CONTROLLER_PLACE_SYNTAX,
  IMAGE_NUMBER_SYNTAX,
  IMAGE_SYNTAX,
  meantDisk,
  meantForward,
  meantImage,
  meantShare,
  parseDisk,
  parseForwards,
  parseImage,
  parseImageFormat,
  parseControllerPlace,
  parseImageNumber,
  parseShare,
  SHARE_SYNTAX,
} from "../machine/parse.ts";
import { parseSmbios, SMBIOS_SYNTAX, type SmbiosTable } from "../machine/smbios.ts";
import { ARCHES, DISK_AIOS, NETBOOT_ORDERS, SNAPSHOT_FORMATS, type ShareRequest } from "../machine/types.ts";
import { bootFile, cpuQuota, diskLimits, labels, layout, mac, slice, tpm } from "./machine-values.ts";
import { networks } from "./networks.ts";
import type { SettingValue } from "./shell-expand.ts";
import {
  flag,
  list,
  listOf,
  listOfForm,
  memory,
  oneOf,
  optionalMemory,
  optionalNumber,
  parser,
  pattern,
  scalarOf,
  text,
  textOfForm,
  wholeNumber,
  withOptions,
  type Parsed,
  type Parser,
} from "./values.ts";

interface Spec<T> {
  parse: Parser<T>;
  /** `create` stores it in the VM's guest.env: always [compat], or only if it differs from the default. */
  kept?: "always" | "if changed";
  /** One line for `vm -h` and the manual page. */
  help: string;
}

const setting = <T>(parse: Parser<T>, help: string): Spec<T> => ({ parse, help });
const kept = <T>(parse: Parser<T>, help: string) => ({ parse, help, kept: "always" as const });
const keptIfChanged = <T>(parse: Parser<T>, help: string) => ({ parse, help, kept: "if changed" as const });

const disks = listOfForm({
  kind: "disks",
  allowed: DISK_SYNTAX,
  parse: parseDisk,
  separator: /[\s,]+/,
  meant: meantDisk,
});
const images = listOfForm({ kind: "images", allowed: IMAGE_SYNTAX, parse: parseImage, meant: meantImage });
const imageFormats = listOfForm({ allowed: IMAGE_FORMAT_SYNTAX, parse: parseImageFormat });
const imageNumbers = listOfForm({ allowed: IMAGE_NUMBER_SYNTAX, parse: parseImageNumber });
const controllerPlaces = listOfForm({ allowed: CONTROLLER_PLACE_SYNTAX, parse: parseControllerPlace });
const forwards: Parser<string[]> = parser({ kind: "forwards", allowed: FORWARD_SYNTAX }, (raw) => {
  const parsed = parseForwards(listOf(raw).join(","));
  return "options" in parsed
    ? { value: parsed.options }
    : { allowed: parsed.allowed, given: parsed.malformed, meant: meantForward(parsed.malformed) };
});
const shareList = listOfForm({ allowed: SHARE_SYNTAX, parse: parseShare, meant: meantShare });
const shares: Parser<ShareRequest[]> = parser({ kind: "shares", allowed: SHARE_SYNTAX }, (raw) => {
  const parsed = shareList(raw);
  if (!("value" in parsed)) return parsed;
  const tags = parsed.value.map((share) => share.tag);
  const twice = tags.find((tag, index) => tags.indexOf(tag) !== index);
  return twice ? { allowed: "each ID once", given: twice } : parsed;
});
const smbios: Parser<SmbiosTable[]> = parser({ allowed: SMBIOS_SYNTAX }, (raw) => {
  const value: SmbiosTable[] = [];
  for (const given of listOf(raw)) {
    const parsed = parseSmbios(given);
    if ("allowed" in parsed) return { allowed: parsed.allowed, given };
    value.push(parsed);
  }
  return { value };
});
const HOST_SYNTAX = "a host name or address, or empty";
/** [compat] An IPv6 address may be in brackets; empty: do not listen on the network. */
const host: Parser<string> = parser({ allowed: HOST_SYNTAX }, (raw) => {
  const value = scalarOf(raw).replace(/^\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]$/, "$1");
  return /^[A-Za-z0-9:._%-]*$/.test(value) ? { value } : { allowed: HOST_SYNTAX };
});
const cores = withOptions(wholeNumber(1, 512), ["threads", "dies", "clusters", "maxcpus"]);
const guestMemory = withOptions(memory, ["slots", "maxmem"]);
/** A TextEncoder takes 0.5 ms to load. */
const byteLength = (value: string): number => Buffer.byteLength(value);
const PROFILE_SYNTAX = "a name without / that does not begin with . or -";
const profileName: Parser<string> = parser({ kind: "profile", allowed: PROFILE_SYNTAX }, (raw) => {
  const value = scalarOf(raw);
  if (byteLength(value) > MAX_OWN_NAME_BYTES)
    return { allowed: `a name of at most ${MAX_OWN_NAME_BYTES} bytes` };
  return isOwnName(value) ? { value } : { allowed: PROFILE_SYNTAX };
});
const program = pattern("a path from /, a program's name, or empty", /^(\/\P{Cc}*|[^/\p{Cc}]*)$/u);
const absolute = pattern("a path from /, or empty", /^(\/\P{Cc}*)?$/u);
const repository = pattern(
  "a path from /, a scheme and a place such as sftp:user@host:/path, or empty",
  /^(\/\P{Cc}*|[a-z0-9]+:\P{Cc}+)?$/u,
);
/** SPICE_MAX_PASSWORD_LENGTH of spice-server. */
const MAX_PASSWORD_BYTES = 60;
const spicePassword = textOfForm(
  `at most ${MAX_PASSWORD_BYTES} bytes of printable text`,
  (value) => !/\p{Cc}/u.test(value) && byteLength(value) <= MAX_PASSWORD_BYTES,
);
const UUID_SYNTAX = "a UUID, such as 123e4567-e89b-42d3-a456-426614174000";
const uuid = textOfForm(UUID_SYNTAX, (value) => value === "" || isUuid(value));
const uuids = listOfForm({
  allowed: UUID_SYNTAX,
  parse: (item: string) => (isUuid(item) ? item : undefined),
});
const userName = pattern("a user's name", /^[^\s\p{Cc}-][^\s\p{Cc}]*$/u);
/** In milliseconds a timer of the runtime takes at most 2³¹ - 1: a greater one fires at once. */
const MAX_TIMER_SECONDS = 2_000_000;
const keepCount = optionalNumber(0, 1_000_000);
const colour = pattern("a sequence like \\033[1;32m, or empty", /^((\\033|\\e|\\x1b|\x1b)\[[0-9;]*m)*$/i);

/** Every setting, by the name it has in users' files. Those of guest.env are written in this order. */
export const SCHEMA = {
  GUESTNAME: kept(text, "the VM's name"),
  QEMUARCH: kept(oneOf(ARCHES, parseArch), `guest architecture: ${ARCHES.join(" ")}`),
  SOCKETS: kept(wholeNumber(1, 64), "CPU sockets"),
  CORES: kept(cores, "CPU cores per socket; further options of qemu's -smp after a comma"),
  MEMORY: kept(guestMemory, "memory; further options of qemu's -m after a comma"),
  UEFI: kept(flag, "boot by UEFI instead of BIOS; always on for aarch64 and armhf"),
  SECURE_BOOT: keptIfChanged(flag, "UEFI boots only signed programs, by the distribution's enrolled keys"),
  TPM: keptIfChanged(tpm, "TPM that swtpm emulates: 2.0; empty: none"),
  ISO: kept(text, "CD image, searched for at each run: as given, in HOSTDIR, in MEDIA_STORAGE"),
  KEEPCD: kept(flag, "leave the CD in after the first boot"),
  FORWARDS: kept(forwards, "port forwards of the first network card on user or passt: hostfwd=tcp::5555-:22"),
  HOST: kept(host, "address the display listens on; empty: no display"),
  PORT: kept(optionalNumber(1, 65535), "port of the display; empty: no display"),
  DISPLAY_PROTOCOL: setting(oneOf(["spice", "vnc", "none"]), "protocol of the display"),
  SPICE_SOCKET: setting(flag, "listen on a unix socket in WORKDIR instead of a port"),
  USENETDEV: kept(flag, "first network card; ignored if NETWORKS is not empty"),
  SHARES: kept(shares, "shared folders, mounted in the guest by 9p with the ID as tag"),
  IMAGES: kept(images, "disk images; those typed with --image apply to that command line"),
  IMAGE_FORMATS: keptIfChanged(
    imageFormats,
    "formats of images that IMAGES names without one, as detected at their first use",
  ),
  IMAGE_NUMBERS: keptIfChanged(
    imageNumbers,
    "numbers of images that are not disk-N.img, where they are not those of their order; read from the VM's guest.env only",
  ),
  CONTROLLER_PLACES: keptIfChanged(
    controllerPlaces,
    "places of disk controllers whose first disk was removed; read from the VM's guest.env only",
  ),
  ACCEL: keptIfChanged(oneOf(["auto", "kvm", "tcg"]), "accelerator"),
  CPU: keptIfChanged(
    pattern("a CPU model of qemu", /^[A-Za-z0-9][A-Za-z0-9_.,=+-]*$|^$/),
    "CPU model; empty: host with KVM, max with TCG",
  ),
  DISK_AIO: keptIfChanged(
    oneOf(DISK_AIOS),
    "how disk images are read and written: threads; io_uring; auto: the fastest that works",
  ),
  SHARED_RAM: keptIfChanged(flag, "the guest's RAM is shared memory, as suspend needs it"),
  SMBIOS: keptIfChanged(smbios, "SMBIOS (DMI) tables of the machine: type=1,manufacturer=ACME,serial=7"),
  SSH_USER: keptIfChanged(userName, "the guest's user that ssh and cp log in as"),
  LABELS: keptIfChanged(labels, "labels, by which commands select VMs: vm stop @web, vm list --label=web"),
  CPU_QUOTA: keptIfChanged(cpuQuota, "limit of CPU time, of one processor: 150%; empty: none"),
  MEMORY_MAX: keptIfChanged(
    optionalMemory,
    "limit of qemu's memory, the guest's RAM and what qemu itself needs; empty: none",
  ),
  IO_WEIGHT: keptIfChanged(
    optionalNumber(1, 10_000),
    "share of the host's disk I/O from 1 to 10000, among others' 100; empty: the same",
  ),
  SLICE: keptIfChanged(slice, "systemd slice that qemu runs in: vms.slice; empty: the default one"),
  DISK_LIMITS: keptIfChanged(
    diskLimits,
    "limits of disks, by their numbers, as `disk set` stores them: 0:iops=500,bps=20M",
  ),
  NETWORKS: keptIfChanged(
    networks,
    "network cards, one element a card: user, passt, bridge=NAME, tap=NAME, net=NAME, or none for no card of this number; options: ,mac=ADDRESS ,link=down, of net ,outside=off",
  ),
  NETBOOT: keptIfChanged(
    oneOf(NETBOOT_ORDERS),
    "boot from the network: last, after the CD and the disks; first; or off",
  ),
  NETBOOT_DIR: keptIfChanged(absolute, "directory of files for network boot, offered to the guest by TFTP"),
  NETBOOT_FILE: keptIfChanged(bootFile, "file of NETBOOT_DIR, or URL, that the guest boots from the network"),
  UUID: keptIfChanged(uuid, "identity of the VM; read from its guest.env only"),
  LAYOUT: kept(
    layout,
    "how devices are placed on the PCI bus: 2: at fixed addresses, 1: the same without a generation ID, 0: by qemu; read from the VM's guest.env only",
  ),
  MAC: kept(
    mac,
    "MAC address of the first card; auto: the VM's own, by its UUID; empty: qemu's default, the same in all VMs",
  ),
  UUID_FORMER: setting(uuids, "earlier identities of the VM; read from its guest.env only"),
  TEMPLATE: setting(flag, "the VM cannot be run, only cloned; read from its guest.env only"),
  DISKS: setting(disks, "disks that create makes; default for guests other than PCs: VIRT=30G"),
  INPLACE: setting(flag, "keep working files in HOSTDIR"),
  JAIL: setting(
    oneOf(["auto", "off"]),
    "confine qemu by bubblewrap: auto: as far as this host can; off: not; not from guest.env",
  ),
  MEDIA_MIRROR: setting(text, "package mirror below MEDIA"),
  MEDIA_STORAGE: setting(text, "directory of ISO images below MEDIA"),
  SSHKEYS: setting(list, "files with public SSH keys, for jobs, cloud-init, ssh and cp"),
  PROFILES: setting(text, "directory of VMs and rescue profiles"),
  LIBEXEC: setting(text, "the program's data files"),
  OVMF_CODE: setting(text, "UEFI firmware code; empty: detected"),
  OVMF_VARS: setting(text, "UEFI variables template; empty: detected"),
  PIGZ_LEVEL: setting(
    wholeNumber(1, 9),
    "compression of gz snapshots: 1 is fastest, 9 smallest (5.5 times slower for 1.5 %)",
  ),
  SNAPSHOT_FORMAT: setting(oneOf(SNAPSHOT_FORMATS), "new snapshots: gz (whole disks) or qcow2 (incremental)"),
  SNAPSHOT_CHAIN: setting(
    wholeNumber(1, 500),
    "longest chain of incremental qcow2 snapshots before a full one",
  ),
  KEEP_LAST: setting(keepCount, "number of newest snapshots that prune keeps"),
  KEEP_HOURLY: setting(keepCount, "number of hours of which prune keeps the newest snapshot"),
  KEEP_DAILY: setting(keepCount, "number of days of which prune keeps the newest snapshot"),
  KEEP_WEEKLY: setting(keepCount, "number of weeks of which prune keeps the newest snapshot"),
  KEEP_MONTHLY: setting(keepCount, "number of months of which prune keeps the newest snapshot"),
  KEEP_YEARLY: setting(keepCount, "number of years of which prune keeps the newest snapshot"),
  SNAPSHOT_REPO: setting(
    repository,
    "restic repository: an absolute path, sftp:…, rest:…, s3:…; not from guest.env",
  ),
  SNAPSHOT_PASSWORD_FILE: setting(absolute, "file with the password of the repository; not from guest.env"),
  SNAPSHOT_NOTIFY: setting(program, "program that backup runs with its outcome; not from guest.env"),
  SPICE_PASSWORD: setting(spicePassword, "password of the display; empty: a new one for each run"),
  SPICE_TICKETING: setting(flag, "password for SPICE; can be off on loopback only"),
  SPICE_TLS_DIR: setting(
    text,
    "directory with ca-cert.pem, server-cert.pem and server-key.pem, to encrypt SPICE",
  ),
  STOP_TIMEOUT: setting(
    wholeNumber(1, 86400),
    "seconds for the guest to power off after stop, Ctrl-C, SIGTERM or SIGHUP",
  ),
  HOOK_TIMEOUT: setting(
    optionalNumber(1, 86400),
    "seconds until a hook on-… or …-backup is ended; default: 60, of backups 600",
  ),
  RESCUE: setting(profileName, "rescue profile"),
  RESCUE_ISO: setting(text, "CD image of the rescue system"),
  RESCUE_SOCKETS: setting(wholeNumber(1, 64), "CPU sockets of the rescue system"),
  RESCUE_CORES: setting(wholeNumber(1, 512), "CPU cores of the rescue system"),
  RESCUE_MEMORY: setting(memory, "memory of the rescue system"),
  RESCUE_FORWARDS: setting(forwards, "port forwards of the rescue system"),
  RESCUE_SHARES: setting(shares, "shared folders of the rescue system"),
  RESCUE_KERNEL: setting(text, "kernel of a rescue system without a CD, as qemu boots it"),
  RESCUE_VMLINUX: setting(text, "the same kernel uncompressed, which starts faster with BIOS guests"),
  RESCUE_INITRD: setting(text, "initramfs of the rescue system"),
  RESCUE_WARM: setting(oneOf(["auto", "off"]), "start the rescue system from a saved state where possible"),
  RESCUE_START_TIMEOUT: setting(wholeNumber(1, 86400), "seconds until the job must have started"),
  TIMEOUT: setting(
    optionalNumber(1, MAX_TIMER_SECONDS),
    "time limit in seconds of a job, exec or run --wait; not of run, which only takes -t",
  ),
  CLR_NORM: setting(colour, "colour: normal text"),
  CLR_BOLD: setting(colour, "colour: announcements"),
  CLR_LC1: setting(colour, "colour: the command in an announcement"),
  CLR_LC2: setting(colour, "colour: arguments in an announcement, names of snapshots"),
  CLR_OK: setting(colour, "colour: success"),
  CLR_ERR: setting(colour, "colour: errors"),
  CLR_WARN: setting(colour, "colour: warnings"),
} as const satisfies Record<string, Spec<unknown>>;

export type SettingName = keyof typeof SCHEMA;
export const SETTING_NAMES = Object.keys(SCHEMA) as SettingName[];

/** Settings that guest.env holds. */
export type KeptName<How extends NonNullable<Spec<unknown>["kept"]>> = {
  [Name in SettingName]: (typeof SCHEMA)[Name] extends { kept: How } ? Name : never;
}[SettingName];

export const namesKept = <How extends NonNullable<Spec<unknown>["kept"]>>(
  how: How,
): readonly KeptName<How>[] =>
  SETTING_NAMES.filter((name): name is KeptName<How> => (SCHEMA[name] as Spec<unknown>).kept === how);

/** Lists that options add to. */
export const ADDED_LISTS = [
  "FORWARDS",
  "IMAGES",
  "NETWORKS",
  "SHARES",
  "SMBIOS",
] as const satisfies readonly SettingName[];
export type AddedList = (typeof ADDED_LISTS)[number];

/**
 * Settings that shape a machine, which a running one keeps while they are changed. FORWARDS, disks and CDs are recorded
 * in another way.
 */
export const machineSettings = (): readonly SettingName[] =>
  SETTING_NAMES.filter(
    (name) =>
      name === "DISPLAY_PROTOCOL" ||
      ((SCHEMA[name] as Spec<unknown>).kept !== undefined && !NOT_OF_MACHINE.has(name)),
  );
const NOT_OF_MACHINE: ReadonlySet<SettingName> = new Set<SettingName>([
  "GUESTNAME",
  "ISO",
  "KEEPCD",
  "FORWARDS",
  "IMAGES",
  "IMAGE_FORMATS",
  "IMAGE_NUMBERS",
  "CONTROLLER_PLACES",
  "SSH_USER",
  "LABELS",
]);

/** The machine settings among these. */
export const pickMachineSettings = (raw: Readonly<Record<SettingName, SettingValue>>): RawSettings =>
  Object.fromEntries(machineSettings().map((name) => [name, raw[name]]));

/** Never shown, and never in an argument list. */
export const SECRETS: ReadonlySet<string> = new Set<SettingName>([
  "SPICE_PASSWORD",
  // A place may hold a user and a password.
  "SNAPSHOT_REPO",
]);
/** Of one VM only: ignored in a file for all VMs and on the command line. */
export const IDENTITY: ReadonlySet<string> = new Set<SettingName>([
  "UUID",
  "UUID_FORMER",
  "TEMPLATE",
  "LAYOUT",
  "MAC",
  "IMAGE_NUMBERS",
  "CONTROLLER_PLACES",
]);
/** Of the user: ignored in a VM's guest.env, which may come from elsewhere. */
export const OF_USER: ReadonlySet<string> = new Set<SettingName>(["JAIL"]);
export const isSettingName = (word: string): word is SettingName => Object.hasOwn(SCHEMA, word);

/** All settings, parsed. */
export type Settings = {
  [K in SettingName]: (typeof SCHEMA)[K]["parse"] extends Parser<infer T> ? T : never;
};

/** Settings as written, not yet parsed. */
export type RawSettings = Partial<Record<SettingName, SettingValue>>;

/** Something for each setting. A copy has the shape of `values`, which takes a fraction of adding 75 names one by one. */
export function mapSettings<V, W>(
  values: Record<SettingName, V>,
  map: (value: V, name: SettingName) => W,
): Record<SettingName, W> {
  const mapped = { ...values } as Record<SettingName, unknown>;
  for (const name of SETTING_NAMES) mapped[name] = map(values[name], name);
  return mapped as Record<SettingName, W>;
}

/** Parses one setting. */
export function parseSetting(name: SettingName, raw: SettingValue): Parsed<unknown> {
  return SCHEMA[name].parse(raw);
}

/** Parses a whole set that was validated before. @throws Error for a bad value, which is a bug */
export function parseSettings(raw: Record<SettingName, SettingValue>): Settings {
  return mapSettings(raw, (value, name) => {
    const parsed = parseSetting(name, value);
    if (!("value" in parsed)) throw new Error(`${name} was not checked: ${JSON.stringify(value)}`);
    return parsed.value;
  }) as Settings;
}
