import { join } from "node:path";

/**
 * Every file name that the program uses, once. Those marked [compat] are also read and written by the earlier
 * program.
 */

/** In HOSTDIR. */
export const HOST = {
  /** [compat] Settings of the VM. */
  guestEnv: "guest.env",
  /** [compat] Symlink to WORKDIR. */
  workLink: ".work",
  /** [compat] Snapshots. */
  backups: "backups",
  /** Linked clones of the VM's snapshots. */
  clones: ".vm-clones.json",
  /** A rename in progress: what is left to do (a redo log). */
  renaming: ".vm-renaming.json",
  /** Locked with flock(2) where HOSTDIR itself cannot be: on a network filesystem. */
  lock: ".vm-lock",
} as const;

/** In WORKDIR. */
export const WORK = {
  /** [compat] Symlink to HOSTDIR. */
  hostLink: ".host",
  guestEnv: "guest.env",
  /** [compat] A job's input and output. */
  in: ".in",
  out: ".out",
  /** [compat] UEFI variables. */
  efivars: "efivars.bin",
  /**
   * Volume with data for cloud-init in the guest, attached while it exists. Not `seed.img`: with `--inplace` that may
   * be a file of the user's, and files of this name are removed with the working files.
   */
  seed: "vm-seed.img",
  /** Directory of swtpm, mode 0700. Not `tpm`: as above. */
  tpm: ".vm-tpm",
  /** Directory of the saved state of a suspended VM (store/suspended.ts). */
  suspended: ".vm-suspended",
  /** The same of one that was resumed: qemu writes to its RAM file. */
  resumed: ".vm-resumed",
  /** [compat] Present until the first run has succeeded. */
  firstTime: "FIRSTTIME",
  /** [compat] The qemu command of the VM. */
  runScript: "run-vm.sh",
  /** Mark: this directory contains working files made by this program. */
  mark: ".vm.json",
  /** Of a linked clone: symlink to HOSTDIR of the cloned VM, whose snapshot's images are the disks' backing files. */
  baseLink: ".vm-base",
  /**
   * While disks are being copied from a repository: symlink to the directory whose `backups` are there, in place
   * (snapshot/remote/arriving.ts). Their backing files are named through it.
   */
  repositoryLink: ".vm-repository",
  /** QMP for short requests. */
  qmp: "qmp.sock",
  /** QMP for the process that runs the VM. */
  monitor: "monitor.sock",
  /** QMP for a snapshot of the running VM, which takes long. */
  backup: "backup.sock",
  console: "console.sock",
  /** Channel of the guest agent (qemu-ga). */
  agent: "agent.sock",
  /** Locked by the command that uses the agent. */
  agentLock: "agent.sock.lock",
  /**
   * A QMP monitor without a client: qemu reads one command from `events.in` and writes events to `events.out`, one a
   * line (its chardev `pipe` accepts regular files, and appends these suffixes itself).
   */
  events: "events",
  eventsIn: "events.in",
  eventsOut: "events.out",
  consoleLog: "console.log",
  /** The guest's host key, for ssh. */
  knownHosts: "known_hosts",
  /** [compat] The qemu command of the last job's rescue. */
  rescueScript: "run-rescue.sh",
  rescueConsoleLog: "rescue.log",
  /** Channels to the rescue: `stop`, its questions, and the files that it serves. */
  control: "control.sock",
  ask: "ask.sock",
  files: "files.sock",
  qemuLog: "qemu.log",
  /** Messages of programs beside qemu (qemu/companion.ts). */
  companionLog: "companions.log",
  spicePassword: "spice.password",
  /** Connection files for a viewer, one for each protocol. */
  spiceViewer: "spice.vv",
  vncViewer: "vnc.vv",
  spiceSocket: "spice.sock",
  vncSocket: "vnc.sock",
  /** Screenshot, as qemu writes it. */
  screen: "screen.ppm",
} as const;

/** Files of a run, removed when the VM is off. */
export const RUN_FILES = [
  WORK.qmp,
  WORK.monitor,
  WORK.backup,
  WORK.console,
  WORK.agent,
  WORK.agentLock,
  WORK.repositoryLink,
  WORK.control,
  WORK.ask,
  WORK.files,
  WORK.spiceViewer,
  WORK.vncViewer,
  WORK.spiceSocket,
  WORK.vncSocket,
  WORK.screen,
] as const;

/** [compat] In a job's `.in` and `.out`. */
export const JOB = {
  script: "job.sh",
  started: "STARTED",
  finished: "FINISHED",
  status: "STATUS",
  log: "job.log",
} as const;

/** In a rescue profile's directory. */
export const RESCUE = {
  guestEnv: "guest.env",
  kernel: "vmlinuz",
  vmlinux: "vmlinux",
  initrd: "initrd.img",
} as const;

/** [compat] `disk-N.img`. */
export const diskName = (index: number): string => `disk-${index}.img`;
export const isDiskName = (name: string): boolean => /^disk-\d+\.img$/.test(name);
/** N of `disk-N.img`; undefined for another name. */
export const diskNumber = (name: string): number | undefined => {
  const digits = /^disk-(\d{1,9})\.img$/.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
};

/** State of the TPM in its directory, as swtpm names it; it replaces it by a rename (swtpm_nvstore_dir.c). */
export const TPM_STATE = "tpm2-00.permall";

/** Names in a snapshot with RAM of files in WORK.suspended: a sparse file, and a small one. */
export const STATE = { ram: "state.ram", devices: "state.devices" } as const;
export const isStateName = (name: string): boolean => Object.values<string>(STATE).includes(name);

/** Path of a working file in WORKDIR, by its name in a snapshot. */
export const workingPath = (dir: string, name: string): string =>
  name === TPM_STATE
    ? join(dir, WORK.tpm, name)
    : isStateName(name)
      ? join(dir, WORK.suspended, name.slice("state.".length))
      : join(dir, name);

/** In a snapshot's directory. */
export const SNAPSHOT = {
  /** [compat] Suffix of disks and efivars. */
  gz: ".gz",
  /** Disks of the format qcow2: `disk-N.qcow2`. */
  qcow2: ".qcow2",
  description: "DESCRIPTION",
  timestamp: "TS",
  sums: "SHA256SUMS",
  manifest: "manifest.json",
  /** If present, `prune` and `rm` keep the snapshot. Not listed in SHA256SUMS. */
  protected: "PROTECTED",
} as const;

/** Is this file of a snapshot one that others, which are written or mapped, depend on as it is? It is read-only. */
export const isFinalFile = (file: string): boolean => file.endsWith(SNAPSHOT.qcow2) || file === STATE.ram;

/** Is it a disk, UEFI variables or RAM? All other files of a snapshot are small. */
export const isLargeFile = (file: string): boolean => file.endsWith(SNAPSHOT.gz) || isFinalFile(file);

/** Name of a disk in a qcow2 snapshot. */
export const imageName = (disk: string): string => disk.replace(/\.img$/, SNAPSHOT.qcow2);

/** [compat] In `backups/`: symlink to the newest snapshot. */
export const LAST = "LAST";

/** `PROG.defaults`: extra arguments for qemu. */
export const defaultsName = (prog: string): string => `${prog}.defaults`;

/** Prefix of directories under construction. The next command removes what a crash leaves of them. */
export const PARTIAL = ".vm-partial-";

/** In WORKDIR: a state that is being saved. */
export const SUSPENDING = `${PARTIAL}suspend`;

/** In HOSTDIR with `--inplace`: complete new working files, to be moved into place (a redo log). */
export const READY = ".vm-ready";

/** In HOSTDIR with `--inplace`: the working files are being removed (a redo log). */
export const REMOVING = ".vm-removing";

/** In the root directory of an ext filesystem: accessible to root only (mklost+found(8)), and not a VM. */
export const LOST_FOUND = "lost+found";
