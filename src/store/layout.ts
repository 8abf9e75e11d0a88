/**
 * Every name the program uses on disk, once. Those marked [compat] are read and written by the
 * earlier program too.
 */

/** In HOSTDIR. */
export const HOST = {
  /** [compat] Settings of the VM. */
  guestEnv: "guest.env",
  /** [compat] Link to WORKDIR. */
  workLink: ".work",
  /** [compat] Snapshots. */
  backups: "backups",
  /** Held with flock(2) where HOSTDIR itself cannot be: on a network file system. */
  lock: ".vm-lock",
} as const;

/** In WORKDIR. */
export const WORK = {
  /** [compat] Link back to HOSTDIR. */
  hostLink: ".host",
  guestEnv: "guest.env",
  /** [compat] A job's input and output. */
  in: ".in",
  out: ".out",
  /** [compat] UEFI variables. */
  efivars: "efivars.bin",
  /**
   * What cloud-init in the guest is told: a volume that is attached while it is there. Not `seed.img`: with
   * `--inplace` that may be a file of the user's, and what bears this name is removed with the working files.
   */
  seed: "vm-seed.img",
  /** [compat] Present until the first run has ended well. */
  firstTime: "FIRSTTIME",
  /** [compat] The command that runs the VM. */
  runScript: "run-vm.sh",
  /** Our mark: this directory holds working files, made by us. */
  mark: ".vm.json",
  /** QMP for short questions. */
  qmp: "qmp.sock",
  /** QMP for whoever runs the VM. */
  monitor: "monitor.sock",
  /** QMP for a snapshot while the VM runs, which takes long. */
  backup: "backup.sock",
  console: "console.sock",
  /** The guest agent's line (qemu-ga). */
  agent: "agent.sock",
  /** Locked by the command that talks to the agent. */
  agentLock: "agent.sock.lock",
  /**
   * A QMP monitor that nobody need listen to: qemu reads one command from `events.in` and writes what happens to
   * `events.out`, one event a line (its chardev `pipe` takes plain files, and adds these endings itself).
   */
  events: "events",
  eventsIn: "events.in",
  eventsOut: "events.out",
  consoleLog: "console.log",
  /** The guest's host key, for ssh: nobody else's business. */
  knownHosts: "known_hosts",
  /** [compat] The command that runs the rescue of the last job. */
  rescueScript: "run-rescue.sh",
  rescueConsoleLog: "rescue.log",
  /** Lines to the rescue (`stop`), and its questions. */
  control: "control.sock",
  ask: "ask.sock",
  qemuLog: "qemu.log",
  spicePassword: "spice.password",
  /** What opens a viewer; one for each protocol, with the socket where there is no port. */
  spiceViewer: "spice.vv",
  vncViewer: "vnc.vv",
  spiceSocket: "spice.sock",
  vncSocket: "vnc.sock",
  /** A picture of the screen, as qemu writes it. */
  screen: "screen.ppm",
} as const;

/** Files of a run: gone when the VM is off. */
export const RUN_FILES = [
  WORK.qmp,
  WORK.monitor,
  WORK.backup,
  WORK.console,
  WORK.agent,
  WORK.agentLock,
  WORK.control,
  WORK.ask,
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
  /** There: not to be removed by `prune`, nor by `rm`. Not among the sums. */
  protected: "PROTECTED",
} as const;

/** The name that a disk has in a snapshot of the format qcow2. */
export const imageName = (disk: string): string => disk.replace(/\.img$/, SNAPSHOT.qcow2);

/** [compat] In `backups/`: link to the newest snapshot. */
export const LAST = "LAST";

/** `PROG.defaults`: extra arguments for qemu. */
export const defaultsName = (prog: string): string => `${prog}.defaults`;

/** Hidden beginnings of things that are still being made (a crash leaves them; the next command removes them). */
export const PARTIAL = ".vm-partial-";

/** In HOSTDIR with `--inplace`: complete new working files, to be moved into place (a redo log). */
export const READY = ".vm-ready";

/** In HOSTDIR with `--inplace`: the working files are being removed (a redo log). */
export const REMOVING = ".vm-removing";

/** At the top of a file system of ext's kind: root's alone (mklost+found(8)), and nobody's VM. */
export const LOST_FOUND = "lost+found";
