/**
 * What the tables of commands, options and settings do not say. PROG stands for the program's name,
 * `…` in backquotes for what is typed or is a file's name.
 */

/** Paragraphs. */
export const DESCRIPTION: readonly string[] = [
  "PROG makes, runs, snapshots, restores and destroys qemu virtual machines, and changes them from outside by jobs: scripts in a small rescue system that has the VM's disks.",
  "A VM has a directory of its own, HOSTDIR: the current directory, or that of `--hostdir`. There are its settings (`guest.env`) and its snapshots (`backups/`). Its working files (disks, NVRAM, sockets) are in WORKDIR, a private directory in `$TMPDIR` or `/tmp`; with `--inplace` they are in HOSTDIR itself. `HOSTDIR/.work` leads to WORKDIR, and `WORKDIR/.host` back. PROFILES is the home of VMs and rescue profiles, `~/PROG`, or `~/.local/share/PROG` where `~/PROG` is a file.",
  "Without a command PROG runs the VM. One word that is no command is a CD image for that run.",
  "Several commands make a batch. They are run in order, and the first failure ends it. The whole line is checked before the first of them runs. A command behind the first is written with `@`; the old names create, run, backup, restore, destroy and job are understood without.",
  "Options stand before the first command and hold for all; where there is one command only, they may stand behind it as well. Options of one command stand behind its name, and go before others of the same name there. Long options may be shortened while they are unambiguous. `--` ends the options.",
  "`PROG help` and `PROG help COMMAND` show what `PROG -h` and `PROG COMMAND -h` do.",
  "Results are on stdout, everything else is on stderr.",
];

/** Paragraphs behind a command's summary. */
export const COMMANDS_PROSE: Readonly<Record<string, readonly string[]>> = {
  create: [
    "Makes WORKDIR, a disk for each entry of `--disks`, UEFI variables with `--uefi`, and `guest.env` with the settings in force. Refused where HOSTDIR has a VM or snapshots already. If anything fails, nothing is left.",
    "`--image` behind the command is kept in `guest.env`; before it, the image is attached for that command line only. With `--user`, ssh and cp log in as that user.",
  ],
  run: [
    "Without working files the last snapshot is restored first. The first run after create boots the CD once, and ends when the guest restarts; later ones boot the disk. An image that is named here is attached and booted once.",
    "Ctrl-C, SIGTERM or SIGHUP asks the guest to power off, and again every few seconds; a second one ends it, and so does `STOP_TIMEOUT`. A run whose guest did not power itself off fails. `WORKDIR/run-vm.sh` is the qemu command, `WORKDIR/console.log` the serial console.",
    "With `--detach` it returns as soon as qemu runs, which outlives the login. `--wait` waits until `ssh` or the guest `agent` answers (at most 300 s, or `-t`), or for a number of seconds. How such a run ended is told by status and by the next command.",
  ],
  stop: [
    "Asks the guest agent, else presses the ACPI power button, and does both again every few seconds. Past the time the guest is ended as by a power cut (`quit`, SIGTERM, SIGKILL), and the exit status is 124. Status 74: qemu was killed or crashed before, or does not end.",
  ],
  restart: ["It is started with what was typed for the run before."],
  status: [
    "`--json` gives one object. Names may be added to it later, not changed. Its `state` is running, paused, stopped, created, crashed or broken.",
  ],
  list: ["Settings files that need bash are not evaluated here."],
  config: [
    "One line for each setting: its value, and where that comes from. Secrets are not shown.",
    "`--example` prints a file for `/etc/PROG.conf` or `~/.config/PROG.conf` that changes nothing: each line has to be uncommented.",
  ],
  backup: [
    "The snapshot appears whole or not at all, in `HOSTDIR/backups/NAME`, with checksums and a manifest. Room is checked first. Only the VM's own disks are kept, not those of `--image`. A snapshot of a running VM needs qemu 7.1 or later.",
  ],
  prune: [
    "Rules count good snapshots of this VM only, and as restic's do. The newest good one, LAST, what is protected or not good, and what a working disk builds on stay. A qcow2 snapshot that no rule keeps, but that kept ones build on, is merged into these.",
  ],
  identity: [
    "The UUID is made by create, or by the first command that changes an older VM. It is in `guest.env`, in the manifest of each snapshot, and a tag of those in a repository. Moving or renaming HOSTDIR keeps it.",
    "A copy of HOSTDIR has the same one. Where a copy is changed beside the original, commands warn, and `backup --push`, `snapshots push` and `prune --remote` are refused there: `identity --new` in the copy gives it a UUID of its own.",
  ],
  restore: [
    "Checksums are verified, and the new working files are made beside the old ones, which are replaced at the end. Refused while the VM runs.",
  ],
  adopt: [
    "For working files that an earlier program has left, behind `.work` or as disks in HOSTDIR itself. They must be yours, in order (qemu-img check), and not in use. It shows what it has found; the files stay as they are.",
  ],
  destroy: ["Snapshots and HOSTDIR's own files are never removed. Refused while the VM runs."],
  job: [
    "A job is the script `NAME.job`, looked for in HOSTDIR, in `PROFILES/scripts/jobs`, and among those that the program brings: `add-ssh-keys`, `run-ssh`, `post-install`. `NAME.pre` and `NAME.post` beside it run on this host, before and after. Its output is on stdout and in `WORKDIR/.out/job.log`; its exit status is the program's. `--timeout` limits it.",
  ],
  rescue: [
    "`build` makes a profile from this host's kernel and programs, from an ALT Rescue CD, or from packages that are unpacked in a directory, which may be of another architecture; `list` shows those there are, and whether they can be used.",
  ],
  "self-check": [
    "SHA256SUMS is that of a release, or any list that sha256sum(1) has written. Status 74: the program is none of those in it.",
  ],
  completion: [
    "The script asks the program itself, so that it knows all commands, options, snapshots, jobs and files. For bash and zsh, in a file that the shell reads when it starts:",
    "`source <(PROG completion bash)`",
    "For zsh also as `_PROG` in a directory of `fpath`; for fish as `~/.config/fish/completions/PROG.fish`.",
  ],
  man: ["Shows this page where stdout is a terminal and there is a man(1); prints its source elsewhere."],
};

export const SETTINGS: readonly string[] = [
  "Weakest first: built-in values, `/etc/PROG.conf`, `~/.config/PROG.conf`, the VM's `guest.env`, the command line. The files are lines of bash assignments, `NAME=value` or `NAME=( value … )`. They are read, not executed; a file with more in it (a condition, a command) is given to bash, if nobody else may write it. `no`, `off`, `0` and empty mean off. HOSTARCH stands for this host's architecture.",
];

export const FILES: readonly (readonly [string, string])[] = [
  ["/etc/PROG.conf", "settings of this host"],
  ["~/.config/PROG.conf", "settings of the user"],
  ["HOSTDIR/guest.env", "settings of a VM; while there are working files, those of WORKDIR count"],
  [
    "PROG.defaults",
    "further arguments for qemu, one or more a line; the first of WORKDIR, HOSTDIR, `~/.config` and `/etc` that has one",
  ],
  ["HOSTDIR/backups/NAME", "a snapshot; `LAST` leads to the newest"],
  ["HOSTDIR/.work", "link to WORKDIR"],
  ["WORKDIR/run-vm.sh", "the command that runs the VM, for reading and for running by hand"],
  ["WORKDIR/console.log", "what the guest wrote on its serial console"],
  ["WORKDIR/qemu.log", "what qemu said"],
  ["WORKDIR/.in, WORKDIR/.out", "a job's input and output"],
  ["PROFILES/NAME/guest.env", "a rescue profile: settings that begin with `RESCUE_`"],
  ["PROFILES/scripts/jobs", "jobs for all VMs"],
  [
    "/usr/libexec/vm",
    "the bundled jobs, where a package has installed them: they are used instead of those that the program carries. First `../libexec/vm` beside the program's own directory is looked for. Places that others may write do not count",
  ],
  ["~/.cache/vm", "the program's data, answers of qemu, saved states of the rescue"],
  ["check-media", "a script on PATH that sets MEDIA, the place of external media, or fails"],
];

export const ENVIRONMENT: readonly (readonly [string, string])[] = [
  ["TMPDIR", "where working files are made; default `/tmp`"],
  ["XDG_CACHE_HOME", "instead of `~/.cache`"],
  ["SPICE_PASSWORD", "the password of the display, where no file sets one"],
  ["RESTIC_REPOSITORY, RESTIC_PASSWORD_FILE", "the repository, where no file sets SNAPSHOT_REPO"],
  ["MEDIA", "as check-media would set it"],
  ["NO_COLOR", "no colours; so does `TERM=dumb`"],
  ["DISPLAY, WAYLAND_DISPLAY", "a desktop session, in which the display is opened"],
];

/** What it does, and the lines to type. */
export const EXAMPLES: readonly (readonly [string, readonly string[]])[] = [
  [
    "Make a VM, install it from a CD, and keep the result as the snapshot S0:",
    ["mkdir -p ~/PROG/ws10 && cd ~/PROG/ws10", "PROG -c 8 -m 4G @create WS10 /iso/image.iso @run @backup"],
  ],
  ["Start again from a snapshot:", ["PROG @restore S2 @run"]],
  [
    "Let one's own SSH keys into an installed system, and log in through a forward:",
    [
      "PROG --rescue=auto job add-ssh-keys",
      "PROG -p '' -f tcp:127.0.0.1:5555-:22 run &",
      "ssh -p 5555 root@127.0.0.1",
    ],
  ],
];

export const SEE_ALSO: readonly string[] = [
  "bash(1)",
  "pigz(1)",
  "qemu(1)",
  "qemu-img(1)",
  "remote-viewer(1)",
];
