/**
 * The exit statuses of each command: what `vm COMMAND -h` ends with, and what the manual page says. The numbers are
 * those of `EXIT` (sysexits.h, and timeout(1)'s 124).
 */
import { EXIT, type ExitName } from "../lib/errors.ts";

/** In general: for the manual page, and for commands that have no words of their own. */
export const EXIT_STATUS: Readonly<Record<ExitName, string>> = {
  ok: "done",
  other: "any other failure",
  usage: "the command line is wrong; nothing was changed",
  noInput: "something named does not exist or cannot be read",
  unavailable: "a program or a feature is missing",
  internal: "internal error: a bug in the program",
  cannotCreate: "cannot create: no space, no permission, or it exists already",
  io: "read, write or verification failed; the guest did not power off by itself; the rescue system died",
  busy: "the VM is running, a template, or locked by another process, or a port is taken",
  config: "a setting in a file is wrong",
  timeout: "a time limit was reached",
};

/** Statuses that no name of `EXIT` stands for. */
export const OTHER_STATUSES: readonly (readonly [status: string, meaning: string])[] = [
  ["128+N", "terminated by signal N, or the program that was run was"],
  ["other", "exit status of the job, of ssh or scp, or of the program that exec ran"],
];

type Words = Readonly<Partial<Record<ExitName | "other statuses", string>>>;

const NO_VM = "there is no VM in HOSTDIR";
const OFF = "there is no VM in HOSTDIR, or it is not running";
const NO_ANSWER = "qemu does not answer, or another process holds the VM's lock";
const REFUSED = "qemu refused, or the connection to it failed";
const FOREIGN = "no space, no permission, or the VM belongs to another user";
const LOCKED = "the VM is running, or locked by another process";
const UNCHANGEABLE = "the VM is running, a template, or locked by another process";

/** What a status means to one command; an empty string: what it means in general. */
const OF_COMMAND: Readonly<Record<string, Words>> = {
  create: {
    ok: "VM created",
    noInput: "the CD image or the image to create from does not exist",
    unavailable: "",
    cannotCreate: "HOSTDIR already has a VM or snapshots; no space or no permission",
    io: "the image cannot be used, or qemu-img failed; nothing is left behind",
    busy: "locked by another process",
  },
  clone: {
    ok: "clones made",
    other: "the job new-identity failed in a clone, which was made nevertheless",
    noInput: "there is no VM in HOSTDIR, no such snapshot or no directory to create DIR in",
    unavailable: "a program is missing, or no rescue system can be built",
    cannotCreate: "DIR exists and is not empty; no space or no permission",
    io: "a disk or the snapshot is damaged, or reading or writing failed; with --run: a clone, which was made, cannot be run",
    busy: "the VM is running, or locked by another process",
    timeout: "the job new-identity did not start in time in a clone, which was made nevertheless",
  },
  run: {
    ok: "the guest powered off, or the VM was suspended; with --detach: it is running",
    noInput:
      "there is no such VM, snapshot, CD image or address of this host, or no repository, which has a part of its disks",
    unavailable: "qemu, firmware, a feature of qemu, or what a network or --from-remote needs is missing",
    cannotCreate: "no space for the RAM of a suspended VM or for --from, or the VM belongs to another user",
    io: "the guest did not power off by itself, qemu failed, a disk is damaged, or a suspended VM cannot be resumed",
    busy: "the VM is already running, a template, or locked by another process, or a port is taken",
    timeout:
      "--timeout: the guest was shut down or killed; with --wait: it did not answer in time, and is still running",
  },
  stop: {
    ok: "the guest is off, or was already; or the VM is suspended",
    noInput: NO_VM,
    cannotCreate: FOREIGN,
    io: "the guest's kernel had panicked, qemu had crashed or been killed, or cannot be killed",
    busy: "locked by another process",
    timeout: "the guest did not power off in time, and was killed",
  },
  restart: {
    ok: "the VM is running again",
    noInput: "there is no VM in HOSTDIR, or no snapshot to start it from",
    unavailable: "",
    cannotCreate: FOREIGN,
    io: "qemu failed, or a disk is damaged",
    busy: "the VM is a template or locked by another process, or a port is taken",
    timeout: "the guest did not power off in time; it was killed, and not started again",
  },
  suspend: {
    ok: "the VM is suspended",
    noInput: OFF,
    unavailable: "qemu cannot save this machine's state, or its RAM is not shared memory (SHARED_RAM)",
    cannotCreate: "no space for the guest's RAM, which runs on; or the VM belongs to another user",
    io: "saving failed, and the guest runs on; or its kernel has panicked",
    busy: NO_ANSWER,
  },
  pause: { ok: "the guest is paused", noInput: OFF, cannotCreate: FOREIGN, io: REFUSED, busy: NO_ANSWER },
  resume: {
    ok: "the guest is running",
    noInput: OFF,
    cannotCreate: "there is still no space for the guest's disks, or the VM belongs to another user",
    io: REFUSED,
    busy: NO_ANSWER,
  },
  status: {
    ok: "state shown; also of a VM that is off or has crashed",
    noInput: NO_VM,
    cannotCreate: "the VM cannot be read: no permission",
    io: "a working disk is damaged, or files of the VM cannot be read",
  },
  list: {},
  events: { noInput: NO_VM },
  top: { ok: "shown, also if no VM is running" },
  set: {
    ok: "settings stored, or they were already",
    noInput: NO_VM,
    unavailable: "the running machine has no card for port forwards",
    cannotCreate: FOREIGN,
    io: "guest.env cannot be written, or qemu refused the change",
    busy: "locked by another process, qemu does not answer, or a port is taken",
  },
  nic: {
    noInput: "there is no VM in HOSTDIR, or no card of that number",
    unavailable: "the VM has the most cards that it can have, or what the network needs is missing",
    cannotCreate: FOREIGN,
    io: "qemu refused the change",
    busy: "locked by another process, qemu does not answer, or the guest is paused or refuses to release the card",
    timeout: "remove: the guest did not release the card in time",
  },
  forward: {
    noInput:
      "there is no VM in HOSTDIR, no such forward, or no such address of this host; --temporary: it is not running",
    unavailable: "no card is on the user-mode network",
    cannotCreate: FOREIGN,
    io: "qemu refused the change",
    busy: "locked by another process, qemu does not answer, or the port is taken",
  },
  backup: {
    ok: "snapshot created",
    other:
      "a hook failed or did not end in time: pre-backup, and no snapshot was made, or post-backup, and it was",
    noInput: NO_VM,
    unavailable: "a program is missing, or qemu is too old for a snapshot of a running VM",
    cannotCreate: "the name is taken; no space or no permission",
    io: "a disk is damaged, or reading or writing failed; no snapshot was left",
    busy: "locked by another process, or qemu does not answer; --ram: the VM is off, or its RAM cannot be saved",
  },
  restore: {
    ok: "working disks replaced, or with --only the files",
    noInput: "no such snapshot, no such file in it, or no repository",
    unavailable: "",
    cannotCreate: FOREIGN,
    io: "the snapshot is damaged, or reading or writing failed",
    busy: UNCHANGEABLE,
    timeout: "--only: files were not copied within the time limit",
  },
  snapshots: {
    noInput: "no such snapshot, or no such file in it",
    unavailable: "",
    cannotCreate: `${FOREIGN}; DIR is not empty`,
    io: "reading, writing or the repository failed, not all files were copied, or the reader of the pipe has ended",
    busy: "the snapshot is protected, in use or being read, or the VM is locked by another process",
    timeout: "files were not listed or copied within the time limit",
  },
  export: {
    ok: "written completely",
    noInput: "there is no VM in HOSTDIR, no such snapshot or no directory for FILE",
    unavailable: "",
    cannotCreate: "FILE exists already; no space or no permission",
    io: "a disk or the snapshot is damaged, or the reader of the pipe has ended",
    busy: "the VM is running or suspended, or locked by another process; or another export writes to FILE",
  },
  import: {
    ok: "VM made",
    noInput: "FILE does not exist, or no directory to create DIR in",
    unavailable: "",
    cannotCreate: "DIR exists and is not empty; no space or no permission",
    io: "the export is truncated, damaged or refused",
    busy: "another process uses DIR",
  },
  prune: {
    ok: "done, also when there was nothing to remove",
    noInput: NO_VM,
    unavailable: "",
    cannotCreate: FOREIGN,
    io: "reading, writing or the repository failed",
    busy: "locked by another process",
  },
  verify: {
    ok: "all snapshots are intact",
    noInput: "no such snapshot",
    unavailable: "",
    cannotCreate: "no space in TMPDIR for a copy",
    io: "a snapshot is damaged, or does not boot",
    busy: "locked by another process",
    timeout: "--boot: a guest did not boot in time",
  },
  autostart: {
    ok: "done; start: the VM runs; stop: the guest is off",
    noInput: "there is no VM in HOSTDIR, or it has no working files",
    unavailable: "systemd is not running, cron is not installed, or cron cannot do this",
    cannotCreate: "a reboot empties a directory of the VM; no permission, or the VM belongs to another user",
    io: "systemd refused; start: qemu failed; stop: the guest did not power off by itself",
    busy: UNCHANGEABLE,
    timeout: "stop: the guest did not power off in time, and was killed",
  },
  timer: {
    noInput: "there is no such timer",
    unavailable: "systemd is not running",
    cannotCreate: FOREIGN,
  },
  cd: {
    noInput: "there is no VM in HOSTDIR, or no such CD image",
    unavailable: "external media are needed, and there are none",
    cannotCreate: FOREIGN,
    io: "the image cannot be used, or qemu failed",
    busy: "the guest has locked the drive, a job is running, or the VM is locked by another process",
  },
  disk: {
    noInput: "there is no VM in HOSTDIR, no such disk, or no such image",
    unavailable: "a program is missing, or resize --fs: a guest agent",
    cannotCreate: "the image is a disk of this VM already; no space or no permission",
    io: "an image cannot be used, or qemu failed",
    busy: "the running guest cannot release the disk, a job is running, or the VM is a template or locked by another process",
    timeout: "remove: the guest did not release the disk in time, and keeps it",
  },
  identity: { noInput: NO_VM, cannotCreate: FOREIGN, busy: "locked by another process" },
  rename: {
    ok: "the VM has the new name, or had it already",
    noInput: "there is no VM in HOSTDIR, or no directory to move it to",
    unavailable: "",
    cannotCreate: "the directory exists, or is on another filesystem; no permission",
    io: "the VM was renamed, but not its timers or its snapshots in the repository",
    busy: LOCKED,
  },
  "move-work": {
    ok: "working files moved, or they were there already",
    noInput: "there is no VM in HOSTDIR, it has no working files, or there is no directory DIR",
    cannotCreate: FOREIGN,
    io: "reading or writing failed, or there are other files among the working files",
    busy: "the VM is running or suspended, or locked by another process",
  },
  adopt: {
    ok: "working files adopted, or they were already",
    noInput: "there are no working files to adopt",
    cannotCreate: FOREIGN,
    io: "the working files cannot be adopted: damaged, or owned by another user",
    busy: "the disks are in use",
  },
  destroy: {
    ok: "working files removed, or there were none",
    noInput: "HOSTDIR does not exist",
    cannotCreate: FOREIGN,
    io: "the guest cannot be killed, or the working files cannot be removed",
    busy: LOCKED,
  },
  job: {
    ok: "the job succeeded",
    other: "a hook failed",
    noInput: "there is no such job, VM or rescue system",
    unavailable: "qemu, bash or a feature of qemu is missing",
    cannotCreate: FOREIGN,
    io: "the rescue system died, or its output could not be stored",
    busy: UNCHANGEABLE,
    timeout: "the job did not start or end in time",
    "other statuses": "the job failed with this status",
  },
  rescue: {
    noInput: "the CD image, kernel or directory does not exist",
    unavailable: "a program is missing, or no kernel fits",
    cannotCreate: "no space or no permission",
    io: "the CD image or a package cannot be used, or a program failed",
    busy: "another rescue build of this profile is running",
  },
  console: {
    ok: "left the console, or the guest is off",
    noInput: OFF,
    cannotCreate: FOREIGN,
    io: "the guest did not read its input",
    busy: "the console is in use",
  },
  exec: {
    ok: "the program ended with status 0",
    noInput: "there is no such program in the guest, or the VM is not running",
    unavailable: "no guest agent answers, or it may not run programs",
    cannotCreate: FOREIGN,
    io: "the connection to the guest agent failed, or the agent exited before the program",
    busy: "another process uses the guest agent",
    timeout: "the program did not end within --timeout",
    "other statuses": "the program ended with this status",
  },
  ssh: {
    ok: "the remote command ended with status 0",
    noInput: OFF,
    unavailable: "ssh is not installed, or no port is forwarded to the guest's port 22",
    cannotCreate: FOREIGN,
    "other statuses": "exit status of the remote command; 255: ssh failed",
  },
  cp: {
    ok: "all files copied",
    noInput: OFF,
    unavailable: "scp is not installed, or no port is forwarded to the guest's port 22",
    cannotCreate: FOREIGN,
    "other statuses": "exit status of scp",
  },
  sendkey: {
    ok: "keys sent, and read by the guest",
    noInput: OFF,
    unavailable: "a job is running, which has no keyboard",
    cannotCreate: FOREIGN,
    io: "the guest does not read its keyboard",
    busy: "the guest is paused, or qemu does not answer",
  },
  screenshot: {
    ok: "image saved",
    noInput: "the VM is not running, or there is no such directory",
    unavailable: "the VM has no graphics card, or the terminal shows no images",
    cannotCreate: "no space or no permission for FILE",
    io: "qemu failed, or FILE cannot be written",
    busy: NO_ANSWER,
  },
  view: {
    noInput: OFF,
    unavailable: "the VM has no display",
    cannotCreate: FOREIGN,
    io: "the viewer failed",
  },
  config: { noInput: "HOSTDIR does not exist" },
  doctor: { unavailable: "a required program is missing" },
  "self-check": {
    ok: "the program is in the list",
    noInput: "the list cannot be read",
    io: "the checksum of the program is not in the list",
  },
  completion: {},
  man: {},
};

/** Commands that read no settings. */
const WITHOUT_SETTINGS = new Set(["completion", "man", "self-check"]);

/**
 * @param command a command's name
 * @returns its statuses in ascending order, each with its meaning
 */
export function exitStatusesOf(command: string): (readonly [status: string, meaning: string])[] {
  const words = {
    ok: "",
    usage: "",
    io: "the output cannot be written",
    ...(WITHOUT_SETTINGS.has(command) ? {} : { config: "" }),
    ...OF_COMMAND[command],
  };
  const named = (Object.entries(EXIT) as [ExitName, number][])
    .filter(([name]) => words[name as keyof typeof words] !== undefined)
    .toSorted(([, a], [, b]) => a - b)
    .map(([name, status]) => [String(status), (words as Words)[name] || EXIT_STATUS[name]] as const);
  const passed = (words as Words)["other statuses"];
  return [...named, ["128+N", "terminated by signal N"], ...(passed ? [["other", passed] as const] : [])];
}

/** The commands that the table knows. */
export const COMMANDS_WITH_STATUSES: readonly string[] = Object.keys(OF_COMMAND);
