import type { DiskBus } from "../machine/types.ts";
import type { SettingName } from "./schema.ts";
import type { SettingValue } from "./shell-expand.ts";

/** Facts of the host and the caller that the defaults depend on. */
export interface Surroundings {
  prog: string;
  home: string;
  /** `uname -m`. */
  hostArch: string;
  /** Directory of VMs and rescue profiles, if it cannot be `~/PROG`. */
  profiles?: string | undefined;
  /** Directory where the program's data files are, or would be, unpacked. */
  libexec: string;
}

/** Default shares of guests and the rescue. The macros: machine/macros.ts. */
const GUEST_SHARES = ["mirror:@MIRROR@", "in:@HOSTDIR@", "out:rw:@DATADIR@"];
const RESCUE_SHARES = ["mirror:@MIRROR@", "in:@INDIR@", "out:rw:@DATADIR@"];

/** One disk, on a bus that the guest's firmware can boot from. */
export const defaultDisks = (bus: DiskBus): string[] => [`${bus}=30G`];

/** The built-in defaults, in the syntax of users' files. */
export function buildDefaults(at: Surroundings): Record<SettingName, SettingValue> {
  return {
    GUESTNAME: "",
    QEMUARCH: at.hostArch,
    SOCKETS: "1",
    CORES: "2",
    MEMORY: "2G",
    UEFI: "",
    SECURE_BOOT: "",
    TPM: "",
    ISO: "",
    KEEPCD: "",
    FORWARDS: "",
    HOST: "localhost",
    PORT: "5900",
    DISPLAY_PROTOCOL: "spice",
    SPICE_SOCKET: "",
    USENETDEV: "1",
    SHARES: GUEST_SHARES,
    IMAGES: [],
    IMAGE_FORMATS: [],
    IMAGE_NUMBERS: [],
    CONTROLLER_PLACES: [],
    ACCEL: "auto",
    CPU: "",
    DISK_AIO: "auto",
    SHARED_RAM: "1",
    SMBIOS: [],
    SSH_USER: "root",
    LABELS: [],
    CPU_QUOTA: "",
    MEMORY_MAX: "",
    IO_WEIGHT: "",
    SLICE: "",
    DISK_LIMITS: [],
    NETWORKS: [],
    NETBOOT: "last",
    NETBOOT_DIR: "",
    NETBOOT_FILE: "",
    UUID: "",
    LAYOUT: "1",
    MAC: "",
    UUID_FORMER: [],
    TEMPLATE: "",
    DISKS: defaultDisks("AHCI"),
    INPLACE: "",
    JAIL: "auto",
    MEDIA_MIRROR: "",
    MEDIA_STORAGE: "",
    SSHKEYS: [`${at.home}/.ssh/id_ed25519.pub`, `${at.home}/.ssh/id_rsa.pub`],
    PROFILES: at.profiles ?? `${at.home}/${at.prog}`,
    LIBEXEC: at.libexec,
    OVMF_CODE: "",
    OVMF_VARS: "",
    PIGZ_LEVEL: "5",
    SNAPSHOT_FORMAT: "gz",
    SNAPSHOT_CHAIN: "30",
    KEEP_LAST: "",
    KEEP_HOURLY: "",
    KEEP_DAILY: "",
    KEEP_WEEKLY: "",
    KEEP_MONTHLY: "",
    KEEP_YEARLY: "",
    SNAPSHOT_REPO: "",
    SNAPSHOT_PASSWORD_FILE: "",
    SNAPSHOT_NOTIFY: "",
    SPICE_PASSWORD: "",
    SPICE_TICKETING: "1",
    SPICE_TLS_DIR: "",
    STOP_TIMEOUT: "60",
    HOOK_TIMEOUT: "",
    RESCUE: `rescue-${at.hostArch}`,
    RESCUE_ISO: "",
    RESCUE_SOCKETS: "1",
    RESCUE_CORES: "2",
    RESCUE_MEMORY: "2G",
    RESCUE_FORWARDS: "",
    RESCUE_SHARES,
    RESCUE_KERNEL: "",
    RESCUE_VMLINUX: "",
    RESCUE_INITRD: "",
    RESCUE_WARM: "auto",
    RESCUE_START_TIMEOUT: "120",
    TIMEOUT: "",
    CLR_NORM: "\\033[0m",
    CLR_BOLD: "\\033[1;37m",
    CLR_LC1: "\\033[1;33m",
    CLR_LC2: "\\033[1;35m",
    CLR_OK: "\\033[0;32m",
    CLR_ERR: "\\033[1;31m",
    CLR_WARN: "\\033[1;33m",
  };
}
