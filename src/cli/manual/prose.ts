/**
 * What the tables of commands, options and settings do not say. PROG stands for the program's name,
 * `…` in backquotes for input and file names.
 */
import { formatSince, LIVE_SNAPSHOTS } from "../../qemu/features.ts";

/** Paragraphs. */
export const DESCRIPTION: readonly string[] = [
  "PROG creates, runs, snapshots, restores and destroys qemu virtual machines, and modifies them offline with jobs: scripts in a small rescue system that has the VM's disks attached.",
  "A VM has a directory of its own, HOSTDIR: the current directory, or that of `--hostdir`. It holds the settings (`guest.env`) and the snapshots (`backups/`). The working files (disks, NVRAM, sockets) are in WORKDIR, a private directory in `$TMPDIR` or `/tmp`; with `--inplace` they are in HOSTDIR. `HOSTDIR/.work` is a symlink to WORKDIR, `WORKDIR/.host` one to HOSTDIR. PROFILES is the home of VMs and rescue profiles: `~/PROG`, or `~/.local/share/PROG` if `~/PROG` is a file.",
  "Files in `/tmp` may disappear when this host restarts, or by age. The next `run` then restores the last snapshot, and says so. For disks that must stay, use `--inplace`, or set TMPDIR.",
  "Without a command PROG runs the VM. A single word that is not a command is a CD image for that run.",
  "Several commands on a line make a batch. They run in order until one fails; the whole line is checked before the first one runs. Every command after the first needs a leading `@`, as its arguments end there; create, run, backup, restore, destroy and job are recognised without behind one another, as of old (`vm run backup`), and are arguments behind other commands (`vm list job`).",
  "Options before the first command apply to all commands of the line; with a single command they may also follow it. An option of a command follows its name, and takes precedence over a global one of the same name. Long options may be abbreviated while unambiguous. `--` ends the options.",
  "`--label=web` runs the line for each VM with that label (LABELS in `guest.env`) of those that `list` shows, one after another: `PROG --label=web @backup @stop`. After a single command the label can be written with an `@`: `PROG stop @web`, unless a command has this name, which would be the next one; not for exec, whose words are the guest's: `PROG --label=web exec true`. An error of one VM does not stop the others; the exit status is the highest of all. run (with `--detach`), stop, restart, pause, resume, suspend, set, backup, prune, verify, job and exec take labels; list and top show only these VMs.",
  "`PROG help` and `PROG help COMMAND` are the same as `PROG -h` and `PROG COMMAND -h`.",
  "Results are printed on stdout, everything else on stderr.",
];

/** Paragraphs after a command's summary. */
export const COMMANDS_PROSE: Readonly<Record<string, readonly string[]>> = {
  create: [
    "Creates WORKDIR, a disk for each entry of `--disks`, UEFI variables with `--uefi` (with `--secure-boot` the distribution's enrolled ones), and `guest.env` with the settings in force. Refused if HOSTDIR already has a VM or snapshots. If anything fails, nothing is left behind.",
    "`--from` creates the first disk from an image, on the bus of the first entry of DISKS, and grows it to the size there (30G by default); `--disk-size` sets the size exactly. With `--linked` the disk is an overlay on IMAGE: `run` fails if IMAGE is gone or has changed. A snapshot contains all data, and once restored needs no other file. An image that refers to other files (a backing file, a data file, extents of a vmdk) is refused: it could expose any file of this host to the guest.",
    "`--cloud-init` passes the host name and SSHKEYS in a read-only disk, `WORKDIR/vm-seed.img`, for the default user of the image or for `--user`, who may use `sudo`; no password is set. `ssh` and `cp` log in as that user.",
    "`--smbios` sets DMI fields, which the guest and jobs read in `/sys/class/dmi/id` (SMBIOS in `guest.env`). Types: 0 BIOS, 1 system, 2 board, 3 chassis, 11 OEM strings, such as systemd credentials: `--smbios=type=11,value=io.systemd.credential:NAME=VALUE` (no secrets: every user of this host can read qemu's arguments). A comma in a value is doubled. PCs, aarch64 and armhf have them. Jobs of such a VM boot the rescue each time.",
    "`--image` after `create` is kept in `guest.env`; before it, the image is attached for that command line only. Archives, compressed files, web pages and empty files are refused as images; `TYPE=raw=FILE` passes a file as it is.",
  ],
  run: [
    "Without working files the last snapshot is restored first. The first run after create boots the CD once, and ends when the guest reboots; later ones boot the disk. An image named here is attached and booted once.",
    "Ctrl-C, SIGTERM or SIGHUP shuts the guest down, asking again every few seconds. A second one, or STOP_TIMEOUT, kills it: `quit`, then SIGTERM, then SIGKILL to qemu. A run whose guest did not power off by itself fails. `WORKDIR/run-vm.sh` is the qemu command, `WORKDIR/console.log` the output of the serial console.",
    "`-t SECONDS` limits the time of a run in the foreground. It counts from the start of qemu, when a snapshot has been restored. The guest is then shut down as by Ctrl-C: requested to power off, and killed STOP_TIMEOUT seconds (60) later if it has not. So the command takes up to SECONDS + STOP_TIMEOUT, and its status is 124 either way; `status` shows whether the guest was killed. TIMEOUT of a settings file does not limit it. In front of a batch, `--timeout` is for its jobs and `exec` if it has any, else for `run`, else for `stop`, `restart` and `verify --boot`; `@run -t SECONDS` is for the run alone.",
    "With `--detach` the command returns as soon as qemu runs, and no other process stays; qemu survives the logout (where systemd kills user processes, run `loginctl enable-linger` once). `--wait` waits until `ssh` or the guest `agent` answers. The exit reason is recorded in `WORKDIR/events.out`, and shown by status and by the next command.",
    "Guests other than ppc64le have a panic device (`pvpanic`, `pvpanic-pci`; Linux and, with drivers, Windows use it). A panic of the guest's kernel is reported at once, and shown by status and list; the guest then does what it is set up to do, such as reboot (`kernel.panic` of Linux). A run that ends after a panic fails, also if the guest's reboot ended it; `stop` and Ctrl-C then kill the guest without asking it to power off. Another panic device or `-action panic=…` can be set in `PROG.defaults`.",
    "`--from=SNAPSHOT` boots a snapshot: a machine of its own, in TMPDIR, boots over the snapshot and is removed with all that the guest has written, by the next command that changes the VM if it was killed. The VM may run meanwhile. It has the snapshot's settings, UUID, UEFI variables and TPM, but no shares, no forwards, no `PROG.defaults` and no CD; its network cards are connected to nothing, unless the command line has cards (`--net=user`). RAM in the snapshot is left out. Disks of a qcow2 snapshot are read in place; gz ones are unpacked first, with a progress display, and need space in TMPDIR. `--from-remote` reads the repository SNAPSHOT_REPO in place, by `restic mount` (FUSE: fusermount3, `/dev/fuse`), in a directory that only this user can enter.",
    "CPU_QUOTA, MEMORY_MAX, IO_WEIGHT and SLICE limit qemu (systemd.resource-control(5)): it runs in a scope of its own, `vm-NAME-PID.scope`, of systemd's manager of the system (root) or of the user, or without systemd in a control group of its own, where the rights of the caller allow one. If neither can be had, the VM runs without its limits, with a warning, and `status` says why; it shows the limits that the kernel has in force. MEMORY_MAX counts the guest's RAM and what qemu needs beside it, at least 128 MiB; less than the RAM is refused. A VM that its unit `vm@….service` starts stays in it, and the limits are set for the unit. Changed limits count from the next run on. `run-vm.sh` has none.",
    "If the space for the disks runs out, qemu pauses the guest. When 64 MiB are free the next command that uses the guest, or `resume`, resumes it.",
  ],
  suspend: [
    "Saves the RAM and the state of all devices in `WORKDIR/.vm-suspended`, and ends qemu. The next `run` resumes it there: with the options of the suspended run, the clock set by the guest agent (without one the guest reads its hardware clock, or asks by NTP), cards connected again, and the display open again; connections through user networking and passt end. A guest that was paused stays paused. If saving fails or is interrupted, the guest runs on.",
    "A state is used once. `run` resumes the machine as it was: settings that have changed since count from the next boot on. It refuses (74), and says why, if qemu is of another version, a disk has changed, or with KVM the processor, and without space for the whole RAM (73), which a running guest must not lack; `run --boot` boots instead, as after a power cut. `stop --force` discards the state. Jobs, `restore` and changes of disks are refused while the VM is suspended; `backup` copies the disks as of that time, crash-consistent, without the RAM.",
    "The guest's RAM must be shared memory (SHARED_RAM, on by default), and without options of your own for `-numa`, `-mem-path` or a memory backend. Mounted 9p shares must be unmounted in the guest first: `umount -a -t 9p`. qemu cannot save disks on NVME, nor resume guests of ppc64le (69). The saved RAM takes as much space in WORKDIR as the guest has used; while a resumed guest runs, this file is its RAM, and the host writes its changes back to it.",
  ],
  stop: [
    "Asks the guest agent, or else presses the ACPI power button, and repeats this every few seconds: a booting guest loses the first request. A guest whose kernel has panicked cannot power off: it is killed at once (74).",
  ],
  restart: [
    "A VM that is not running is started. A guest whose kernel has panicked is killed at once, and started again.",
  ],
  status: [
    "The object of `--json` has: `name`, `directory`, `state` (running, paused, suspended, stopped, created, crashed or broken), `error` and `hint`, `arch`, `cores`, `memoryMiB`, `uefi`, `secureBoot` (the setting; of UEFI also `platformKey`, whether one is enrolled in its variables, and `secureBootEnforced`; null: not known), `tpm` (`2.0` or null), `labels`, `template` (it can only be cloned), `clonedFrom` (of a clone: `directory`, `uuid`, `snapshot`, `linked`; `movedFrom` if that VM was moved and the linked clone was not changed since), `clones` (its linked clones: `directory`, `uuid`, `snapshot`, `missing`), `tpmExited` (of a running VM whose swtpm has exited: true), `disks` (`file`, `virtualBytes`, `actualBytes`; of a running VM `attached` and `aio`), `images` (other disks, as of `disk list --json`; of a running VM with `aio`), `diskAio` (if all disks have the same), `nics` (`number`, `network`, `mac`, `link`; once on a network among VMs `name`, `address`; of a running VM `exited`: programs that served the card and have exited, such as `passt`), `nextRun` (settings that the next run changes, by name), `nextRunChanges` (the same by element: `setting`, of NETWORKS `card`, `running`, `nextRun`; null: absent), `settingsFile` (the guest.env that is read), `unreadSettings` (that of HOSTDIR, if it was changed later), `sameAs` (another directory with a VM of the same UUID), `snapshots` (`count`, `last`), `forwards`, `display`, `job` (a job runs, or its rescue is being prepared), `panicked` (the kernel of the running guest), `limits` (of a running VM that has some: `group`, `cpuPercent`, `memoryBytes`, `ioWeight` as in force, else null; `problem`), `pid`, `started`, `uptimeSeconds`, `lastEnd` (`end`, `at`, and unless the guest ended the run `how`, in words), `workingFiles` (`directory`, `inplace`, `actualBytes`), `gone` (missing working files: since when, and what run does), `guestErrors`, `suspended` (of a suspended VM: `since`, `ramBytes`). Names may be added, not changed.",
  ],
  set: [
    "Stores settings in the VM's `guest.env`: `PROG set -m 4G -c 4 CPU=host`. A list is given as one word for each element, as in `SHARES=a:/x SHARES=b:/y`; `--share` and `--forward` add to the list. `SETTING=` stores an empty value, `--unset=SETTING` removes the line. The file is named: while there are working files it is that of WORKDIR, and changes in HOSTDIR's have no effect.",
    "Processors that qemu refuses are refused (it is started with them for the check, without devices); more memory than the host has, less than 16 MiB, and a CPU that needs KVM where there is none, are warned of.",
    "A running VM keeps its settings until the next run, but for FORWARDS and `link=` in NETWORKS, which are changed at once. `status` shows both: what the running machine has, and as `next run` what will change. `restart` uses the options of the last start again, but for settings changed since.",
    "`LAYOUT=2 MAC=auto` gives a VM of an earlier version fixed places for its devices and a MAC address of its own. Names of network interfaces and paths of disks may change in the guest, once.",
  ],
  nic: [
    "Cards have numbers from 1 to 4, which decide their places on the PCI bus. `add` takes the lowest free number, and of a running VM the lowest that can be plugged in (from 2). `remove` of a running VM waits until the guest has released the card, at most 30 s; card 1 is removed from the next run on. The MAC address is derived from the VM's UUID, unless `--mac` is given. Networks are those of NETWORKS: `nic add net=lab`.",
    "`down` unplugs the cable, `up` plugs it in again: at once, and at later starts. Everything is stored in NETWORKS in `guest.env`. FORWARDS are kept when the last card is removed, and take effect with the next one.",
  ],
  forward: [
    "A rule is PROTOCOL:[ADDRESS]:PORT-[ADDRESS]:PORT, as of `--forward`. A running VM is changed at once. Rules are stored in FORWARDS in `guest.env`; with `--temporary` they hold until the VM is off, as those of `run --forward`. Forwards belong to the first card on `user` or `passt`; those of passt are changed from the next run on, and go to the guest's own address.",
  ],
  events: [
    "The events of runs are those that qemu writes itself, so that nothing has to stay resident: `ready` is the guest agent's port opened, `paused` has the reason if a disk is full. The rest is recorded by the commands, in `$XDG_STATE_HOME/vm/events.jsonl` (`~/.local/state/vm`), of all VMs of this user, bounded to the last 2 MiB. The end of a run in the background is recorded by the next command; until then it is inferred. Events are those of a directory: they stay behind if the VM is renamed or moved.",
    "With `--json`, `at` is an ISO time stamp, `vm` is HOSTDIR; the further members depend on the event.",
  ],
  top: [
    "CPU % is of one processor, RSS and PSS the memory of qemu (PSS: shared pages are divided among those that share them), RAM the guest's. Disk rates come from qemu's monitor, network rates from tap devices; `-` is what is not known: while another command uses the monitor, and with user networking, passt and networks among VMs. The fullest filesystem is one of the guest, by its agent, which has half a second to answer and is asked every 10 s; `filesystems` of `--json` has all of them, or null without an agent. A table on a terminal is renewed until `q`; Ctrl-Z suspends it.",
  ],
  list: [
    "`PROG list running 'web*'` lists the VMs in one of these states whose name or directory fits one of the patterns, `--label=web` or `@web` those with the label (LABELS).",
    "Settings files that need bash are not evaluated here.",
  ],
  console: [
    "Without a terminal on stdin, input is typed into the console, and output is printed until the guest is off. `WORKDIR/console.log` has all output since the start.",
  ],
  ssh: [
    "Connects to the port that is forwarded to the guest's port 22, with the keys of SSHKEYS only, and a known_hosts file of the VM's own.",
  ],
  sendkey: [
    "Drives an installer or a boot menu without a viewer, together with `screenshot`: `PROG sendkey ctrl-alt-f2 --text 'root\\n'`. Of a PC's keyboard each key is sent when the guest has read the one before, so that none is lost; a USB keyboard (other architectures) gets one every 40 ms. What a program in the guest reads and drops itself can be slowed down with `--delay`.",
    "TEXT is typed as on a US keyboard: the guest must have this layout. Other users of this host can read TEXT in the list of processes.",
  ],
  exec: ["Output, exit status and stdin are passed. Needs qemu-guest-agent in the guest."],
  config: [
    "Prints a line for each setting: its value, and where it was set. Secrets are not shown.",
    "`--example` prints a file for `/etc/PROG.conf` or `~/.config/PROG.conf` that changes nothing until lines are uncommented.",
  ],
  backup: [
    `Available space is checked first. A snapshot of a running VM needs ${formatSince(LIVE_SNAPSHOTS.since)}.`,
    "SNAPSHOT_NOTIFY names a program to run with the outcome, in the variables VM_OUTCOME (`ok`, `failed`), VM_SNAPSHOT, VM_NAME, VM_HOSTDIR, VM_MESSAGE, VM_STATUS, VM_BYTES and VM_SECONDS.",
  ],
  snapshots: [
    "`diff` compares what the guest would read, in clusters of 64 KiB, whatever the formats. `rm` refuses protected snapshots, and those that others depend on.",
    "`ls NAME PATH` lists a directory of the guest, `ls NAME` the filesystems in the snapshot. A PATH is as in the installed Linux system, found by its fstab, symlinks followed as there; on another filesystem it is `FILESYSTEM:/PATH`, as in `disk-1p2:/data`. `get NAME PATH… DEST` copies as cp(1) does, into the directory DEST or to that new name; without DEST to the current directory, and `-` is standard output, for one PATH; a directory becomes a tar archive there (for `tar -x`, with owners and modes as in the guest). Patterns are not expanded. A PATH that is a symlink is followed as in the guest; if it refers to nothing, it is copied as such. Nothing is overwritten. Modes and times are kept, owners if the caller is root; setuid and setgid bits of files, extended attributes, devices, pipes and sockets are not; of a file with an ACL, the group's bits are the ACL's mask. What has a path of more than 4095 bytes, or a name that the destination cannot have, is left out; the rest is copied, and the status is 74. A file whose name is not UTF-8 needs a new name as DEST. `diff --files` compares type, mode, owner, size, time and target of symlinks, from `/` or a PATH after the names down, not ACLs and other extended attributes (`restore --only` keeps these). A: added, D: deleted, M: modified, T: of another type, t: only the time differs, so the contents may; with `--checksum` they are compared instead. Names are shown as by `ls -b`; with `--escaped`, `ls`, `get`, `mount`, `diff --files` and `restore --only` take a PATH as it is shown there (in single quotes: `'/srv/a\\nb'`). In `--json` a name that is not UTF-8 is `pathBase64`.",
    "`ls`, `get` and `diff` do not lock the VM: it can run, and be backed up, meanwhile. A snapshot that is being read is not removed, merged, described or renamed with its VM (status 75), and `prune` keeps it. Where directories cannot be locked (NFS, SMB), the VM is locked.",
    "`mount NAME DIR` shows the guest's files in the empty directory DIR, `mount NAME PATH DIR` those below PATH, read-only and without setuid programs, until `fusermount3 -u DIR` or Ctrl-C. A rescue that runs as long serves them by SFTP to sshfs(1), which must be installed, and OpenSSH's sftp-server where the rescue was built. Only the caller can enter DIR, and reads all files, whatever their owners. No symlink refers to a file outside DIR: an absolute one, and one with more `..` than directories above it, is shown as a relative one to the same file of the guest; one to a file outside PATH, or with `..` after a name (which may be a symlink, too), cannot be read (permission denied). If sshfs itself is killed, DIR does not answer until `fusermount3 -u DIR`, or the next `mount` there. The VM is not locked meanwhile.",
    "The snapshot's disks are mounted read-only in the rescue, without a network, over throw-away files in TMPDIR that receive a journal's replay: there is what a gz snapshot needs unpacked, and the archive of what is copied. A passphrase of LUKS is asked for on the terminal, or read from the file of `--key-file` (as it is, or without the line end that an editor adds). TIMEOUT limits it; default: 10 minutes for a list, an hour for files. `ls` prints what it has found after three quarters of that; the status is 124 then.",
  ],
  prune: [
    "Rules count intact snapshots of this VM only, as those of restic do. The newest intact one, LAST, protected and damaged ones, and those that a working disk depends on are kept in any case. A qcow2 snapshot that no rule keeps, but on which kept ones depend, is merged into these: that rewrites them, and needs space. Without space it is kept, with a warning. `--no-merge` always keeps it.",
  ],
  verify: [
    "Compares all files with their checksums, and decompresses files of the format gz to test them, which takes as long as their disks are large, also where these are sparse. Each snapshot is kept from being removed or changed meanwhile; the VM is locked with `--boot` only, until the guest has booted. `--boot` boots a copy in TMPDIR, and removes it afterwards.",
  ],
  autostart: [
    "`on` writes and enables a unit of systemd, `PROG@INSTANCE.service`; the instance is HOSTDIR as by `systemd-escape --path`. root's is one of the system, which runs as the owner of HOSTDIR; that of another user is one of the user's systemd, which starts with the host after `loginctl enable-linger`. The unit is started once qemu runs, or with `--wait` once the guest answers, or after 300 s. `--order` is among the VMs of one systemd; those with equal numbers are started at the same time. `off` removes the unit. What is changed in it by hand is lost when it is written again, as for another VM's order: use `systemctl edit`.",
    "At a shutdown of the host the guests are shut down in reverse order, as by `stop`: by the agent, by ACPI, and after `--timeout` by killing qemu. With `--restart` a VM whose qemu crashed or was killed, or whose guest panicked, is started again, at most 10 times within 10 minutes; then the unit is `failed`. A guest that powered off, and one that `stop` or `suspend` ended, stays off. qemu is the unit's main process: nothing else runs.",
    "`run --detach` and `restart` have systemd start the VM, so that it watches this run, too. A run in the foreground, or with options of its own, is not watched; `status` says so. `status` and `list` show the state of the units. After a reboot, working files that are missing are not replaced by a snapshot: the unit fails.",
    "Only a VM that survives a reboot can be started with the host: `on` refuses one whose working files are in a directory that a reboot empties (73), and `move-work` moves them; the unit then waits for the filesystem of the new directory.",
    'Without systemd, or with `--cron`, a line `@reboot` in the user\'s crontab starts the VMs in their order, one after the other. cron neither restarts a VM nor shuts guests down with the host. Packages have a unit `PROG@` for use by hand: `systemctl enable "PROG@$(systemd-escape --path /srv/PROG/web).service"`.',
  ],
  timer: [
    '`--install` starts a systemd service and timer. Packages also have units for root\'s VMs: `systemctl enable --now "PROG-backup@$(systemd-escape --path /srv/PROG/web).timer"`.',
  ],
  cd: [
    "IMAGE is searched for as `run` does. It is in the drive from now on, in this run and later ones (ISO and KEEPCD in guest.env), until `--eject` or another one; the disks are booted first, except at the first run. A guest that uses the CD has locked the drive: it is asked to release it, and `--force` opens the drive regardless. status shows the CD. Machines without a CD drive whose CD can be changed (riscv64; LAYOUT=0 without a CD at the start) have it from the next run.",
  ],
  disk: [
    "`set` limits a disk: `disk set 0 --iops=500 --bps=20M`, at once and from then on (DISK_LIMITS in `guest.env`). The limit is that of the guest's device: a backup reads the disk without it. `run-vm.sh` has none.",
    "A new disk, `disk-N.img`, belongs to the VM and to its snapshots; N is one above the highest number in use, or the lowest free one if the running machine has no other place. Without TYPE its bus is that of the first disk. An existing image given by PATH stays where it is, and is in no snapshot; one in HOSTDIR is stored as `@HOSTDIR@/PATH`, so that a copy of the VM uses its own. A name like `10G` is a size, `./10G` a file. `list` shows the disks by their numbers, and so does status, which opens no image outside HOSTDIR and WORKDIR: of a VM that is off, it shows no sizes of those.",
    "While the VM runs, disks on VIRT, SCSI and NVME are attached at once, at the place they have after the next start; a disk on AHCI or USB counts from the next run, as in a VM with LAYOUT=0. A machine on PCI Express (UEFI, `virt`) is started with four free places for disks. `remove` waits 30 seconds for the guest to release the disk; most guests do so also while they use it, as for a filesystem or swap: unmount it first. The file of one of the VM's own disks is the only copy of its data unless a snapshot has it: `remove` deletes it with `--delete` only, and refuses without.",
    "`resize` grows a disk, never shrinks it; one on NVMe only while the VM is off (qemu 7.2). The next snapshot is a full one. Partitions and filesystems in it stay as they are without `--fs`, which then runs the script of the bundled job grow-fs, in the rescue system or by the agent of the running guest: the last partition, LUKS, an LVM volume group with its one logical volume that has a filesystem (of several that of the root), ext2/3/4, XFS or btrfs. What cannot be grown is refused before anything on the disk is changed. For LUKS the job asks on the terminal for the passphrase; in a running guest LUKS2 grows only if its key is in a token, such as a TPM. Back the VM up before.",
  ],
  export: [
    "Writes one file with everything that belongs to the snapshot, or to the VM that is off: settings, disks, NVRAM, the state of the TPM, RAM, and the parents of an incremental snapshot. It is as confidential as the disks. `PROG export | ssh HOST PROG import - web` needs no space in between; `ssh -C` compresses. Checksums are compared while it is written, and the VM is not locked for a snapshot.",
    "FILE is written as `FILE.vm-partial` and then renamed. The same command continues an interrupted export of a snapshot after the last complete member.",
    "`--format=ova` writes an OVA for other programs: OVF 1.1, a manifest with SHA-256, disks as streamOptimized vmdk. They are converted in TMPDIR first. Shared folders, the TPM and UEFI variables are not in it; disks on VIRT, SCSI and USB are on a SCSI controller there, as other programs have no virtio. `import` makes the same machine of it: architecture, buses and MAC addresses are recorded, too.",
  ],
  import: [
    "Makes a VM in DIR with the snapshots, and restores the last one. DIR has nothing but a hidden directory until everything was received and checked: an export that is truncated or changed is refused. The same command with a FILE continues an interrupted import, without receiving again what is there.",
    "The VM keeps its UUID and MAC addresses, as it was moved, unless the original is on this host, or `--new-identity` is given; the former UUID is recorded. Before there is a VM, headers of disks and sizes are compared with the manifest, and `guest.env` must be plain assignments of values that are allowed. What the settings reach on this host is listed, as `status` does: check it before `run`, as checksums do not say who made the export. Of a pipe that breaks nothing is kept.",
    "Of an OVA (OVF 1.0, 1.1 and 2.0) processors, memory, firmware, network cards with their MAC addresses and the disks are taken over; disks on IDE and SCSI controllers are on AHCI, unless `export` wrote it. Options such as `-m 4G` take precedence. One that has several VMs, disks elsewhere, links or devices is refused, and so is a manifest without a disk. An interrupted import of an OVA leaves nothing to continue: the same command begins again.",
  ],
  clone: [
    "The clone is a VM of its own: new disks and UEFI variables, the settings in `guest.env` and `PROG.defaults`, a new name (that of DIR), UUID and MAC addresses; snapshots stay with the original. Host ports of forwards, and a display's port other than 5900, are the next ones that no other VM of yours has and no program listens on. Images outside of HOSTDIR are not copied: both VMs name them. The TPM is a new one, as with libvirt's virt-clone, so that keys that the guest has sealed in it, as of encrypted disks, are not there: `--keep-tpm` copies it. Of a running VM, clone a snapshot: `PROG backup && PROG clone LAST DIR`, with RAM `PROG backup --ram && PROG clone LAST DIR --run`. A clone of a suspended VM has its disks as after a power cut, without its RAM.",
    "In the guest, the host name, the machine-id and the SSH host keys are renewed: a VM with cloud-init's volume gets one with a new instance-id; unless such a VM has never been run, the bundled job new-identity does it, too, on the disks of Linux guests, in the rescue system. `--keep-guest` leaves all that as it is, as it must for other guests.",
    "A full clone needs nothing of the original; its disks share data with it where the filesystem can (reflink). With `--linked` they are overlays on the images of a qcow2 snapshot, made in an instant. That snapshot cannot be removed, merged or pruned while such a clone exists; `status` lists them. The clone's own backups contain everything; `backup` and `restore --copy` in the clone make it independent. A clone that was moved by hand is recorded again by the next command that changes it; `--forget DIR` removes the record of one that was deleted.",
    "With `--run` the clones run in the background. Those of a snapshot with RAM (`backup --ram`) resume there at once, as after `restore --run`; the RAM of linked ones is mapped from the snapshot, so that they share what they do not change; until a restart they cannot be suspended, nor backed up with RAM. The TPM is a copy then. Of a running guest not everything can be renewed. Until it reboots, it has the MAC addresses of the original: cards on `bridge`, `tap` and `net` are disconnected (`PROG nic up N`), those on `user` and `passt` are on a network of their own. Host name, machine-id and SSH host keys are renewed by the guest agent, with new random numbers for the kernel; without an agent they stay, with a warning. A kernel that knows the generation ID (HARDWARE) gets new random numbers by itself; one that has neither may draw the same at first in all clones. Running programs keep what they know. If qemu, accelerator or processor is not that of the snapshot, the clones have its disks only, and boot.",
    "A template is a VM with `PROG set TEMPLATE=yes`: it can be cloned, backed up and verified, but not run, restored or changed by jobs or `disk`. It stays one without its working files, as after `destroy`, and can then be restored. `--linked` without SNAPSHOT builds on its newest snapshot.",
    "Each clone is complete or not there. The next `clone` to the same DIR removes what a killed one left.",
  ],
  rename: [
    "NAME is a name beside HOSTDIR, or a path on the same filesystem. The VM must be off. Its name in `guest.env`, linked clones of it (which may run), timers, autostart, and the tags of its snapshots in the repository follow; a crontab that names the old directory is reported. Older snapshots have the old name in their settings; `restore` keeps the present one. After an interruption the next command completes what is on this host's disks; `rename` with the present name completes the rest, and has linked clones find a VM that was moved by hand.",
  ],
  "move-work": [
    "Moves the working files of a VM that is off to a new directory in DIR, or to HOSTDIR itself. They are intact in the old or in the new place at any time: within a filesystem by second names, without copying; to another one as copies of the same blocks where it can share them, else without holes, synced before they replace the old ones. After a kill the next command removes the part that is left. A later `restore` stays in DIR if a reboot would empty TMPDIR. Other files among the working files, such as images named in IMAGES, move to DIR with them; to HOSTDIR they are refused.",
  ],
  identity: [
    "The UUID is assigned by create, or by the first command that changes an older VM. It is stored in `guest.env`, in the manifest of each snapshot, and as a tag in a repository. Moving or renaming HOSTDIR keeps it.",
    "A copy of HOSTDIR has the same UUID. If a copy is used beside the original, `status` and `identity` name the other directory, commands that change the VM warn, and refuse to push to the repository or prune it: assign a new UUID with `identity --new` in the copy. MAC addresses that are derived from it change, too; those given explicitly stay, as do images outside HOSTDIR, which both VMs then refer to.",
  ],
  restore: [
    "`--from-remote --run` boots the VM over the snapshot in the repository, which is read in place as by `run --from-remote`, and copies the rest to the working disks while the guest runs. The previous working disks are replaced before it boots, as by any restore. What the guest writes is in the working disks from the start, and what it has flushed stays there, whatever fails. If a part that is not here yet cannot be read, the guest is paused, not shown an error; it is resumed when the repository can be read again, which is tried until then. A process of the program and restic read the repository, and end when all is here: the disks need it no more then. `status` shows what is missing, and what to do: after a restart of the host, or if qemu was killed, `run`, which needs the repository; if the process that reads it was killed, `resume`. Until all is here, the VM cannot be backed up, cloned, exported, renamed or suspended, its disks not changed, and no job runs (75); restic has the repository locked against its own `prune` and `check`, and `prune --remote` keeps the snapshot. The next backup is a full one.",
    "The snapshot is fetched first, and the VM run then, without FUSE, if qemu was built without its driver `quorum`, for gz snapshots, snapshots with RAM, and disks on NVME or USB, on which a guest would be shown an error. A guest gives up on a disk that does not answer for about 30 seconds: over a line that brings less than 1 MiB a second, fetch the snapshot (`restore --from-remote`). Holes of a disk are walked, too, at several minutes for 100 GiB.",
    "`--only=PATH` replaces a file or directory of the VM, which must be off, by that of the snapshot, with everything in it, and leaves all else as it is: what is in the directory now and was not then is gone. Owners, modes, times, extended attributes, ACLs and SELinux labels are those of the snapshot. The rescue unpacks all of it beside the old files, in `.vm-partial-restore`, and renames it at the end, all paths or none: after an error, a full disk or a kill the old files are there, and the next restore there removes what is left. Files that chattr(1) made immutable or append-only are refused; such attributes are not restored. `--dry-run` checks in throw-away copies that the paths are in the snapshot and can be replaced, and shows them; not whether there is space. The parent directory must exist; a mount point cannot be replaced, what is in it can.",
    "Checksums are verified, and the new working files are created beside the old ones, which are replaced at the end. Refused while the VM is running. The settings in `guest.env` are those of the snapshot, too: memory, cards, forwards, disks and CD; UUID, name and TEMPLATE stay those of the VM.",
  ],
  adopt: [
    "For working files that an earlier program made, behind `.work` or as disks in HOSTDIR. They must be yours, intact (qemu-img check), and not in use. The files stay as they are.",
  ],
  destroy: [
    "Snapshots and HOSTDIR's own files are never removed. Refused while the VM is running, unless `--force` is given.",
  ],
  job: [
    "The script `NAME.job` is searched for in HOSTDIR, in `PROFILES/scripts/jobs`, and among the bundled jobs. See JOBS.",
  ],
  rescue: [
    'With `--iso`, `--recovery=DIR` adds the files of DIR (at most 1 GiB) to `/recovery` on the CD, where jobs find them as `$RECOVERYDIR`. An `autorun` among them is run instead of the program\'s own script, which is then beside it: end yours with `exec "${0%/*}/vm-runner"`, or jobs do not start. `--append` adds kernel arguments for BIOS and UEFI; those of the same name are replaced (`console=` by device, the last one shows the messages of the start).',
    "`build` makes a profile from this host's kernel and programs, from an ALT Rescue CD, or from packages unpacked in a directory; `list` shows the profiles, their architecture, and whether they can be used.",
  ],
  doctor: ["Writes nothing. Names the packages of this distribution."],
  "self-check": ["SHA256SUMS is that of a release, or any list that sha256sum(1) wrote."],
  completion: [
    "The script asks the program itself, and need not be renewed with it. For bash and zsh, in the shell's startup file (zsh: after compinit):",
    "`source <(PROG completion bash)`",
    "For zsh also as `_PROG` in a directory of `fpath`; for fish as `~/.config/fish/completions/PROG.fish`.",
  ],
  man: ["On a terminal the page is shown by man(1) or mandoc(1); otherwise its source is printed."],
};

export const SETTINGS: readonly string[] = [
  "Later ones override earlier ones: built-in values, `/etc/PROG.conf`, `~/.config/PROG.conf`, the VM's `guest.env` (while there are working files, that of WORKDIR), the command line. The files are bash assignments, `NAME=value` or `NAME=( value … )`. They are read, not executed; a file with anything else in it (a condition, a command) is evaluated by bash, if no other user can write to it or its directory. `guest.env` is never evaluated by bash. `no`, `off`, `0` and empty mean off. HOSTARCH stands for this host's architecture.",
];

export const FILES: readonly (readonly [string, string])[] = [
  ["/etc/PROG.conf", "settings of this host"],
  ["~/.config/PROG.conf", "settings of the user"],
  ["HOSTDIR/guest.env", "settings of a VM; while there are working files, that of WORKDIR is read instead"],
  [
    "PROG.defaults",
    "further arguments for qemu, one or more a line; the first of WORKDIR, HOSTDIR, `~/.config` and `/etc` that has one. Relative paths are relative to WORKDIR. Network back ends that need a helper program (`bridge`, `tap`) open the sandbox that far",
  ],
  ["HOSTDIR/backups/NAME", "a snapshot; `LAST` is a symlink to the newest"],
  ["HOSTDIR/.work", "symlink to WORKDIR"],
  ["WORKDIR/run-vm.sh", "the qemu command of the VM, to read or to run by hand"],
  ["WORKDIR/console.log", "output of the guest's serial console"],
  ["WORKDIR/qemu.log", "output of qemu"],
  ["WORKDIR/.in, WORKDIR/.out", "a job's input and output"],
  ["PROFILES/NAME/guest.env", "a rescue profile: settings that begin with `RESCUE_`"],
  ["PROFILES/scripts/jobs", "jobs for all VMs"],
  [
    "/usr/libexec/vm",
    "bundled jobs installed by a package, used instead of those in the program. `../libexec/vm` beside the program's own directory takes precedence. Directories that other users can write to are ignored",
  ],
  ["~/.cache/vm", "the program's data, features of qemu, saved states of the rescue system"],
  [
    "check-media",
    "a bash script on PATH that sets MEDIA, the directory of external media, or fails. It is run only if a setting refers to it. With an empty MEDIA, MEDIA_MIRROR and MEDIA_STORAGE are absolute paths",
  ],
];

export const ENVIRONMENT: readonly (readonly [string, string])[] = [
  ["TMPDIR", "directory for working files; default `/tmp`"],
  ["XDG_CACHE_HOME", "instead of `~/.cache`"],
  ["SPICE_PASSWORD", "password of the display, if no file sets one"],
  ["RESTIC_REPOSITORY, RESTIC_PASSWORD_FILE", "the repository, if no file sets SNAPSHOT_REPO"],
  ["MEDIA", "as check-media would set it"],
  ["NO_COLOR", "disables colours; so does `TERM=dumb`"],
  ["DISPLAY, WAYLAND_DISPLAY", "the desktop session in which the display is opened"],
];

/** What it does, and the lines to type. */
export const EXAMPLES: readonly (readonly [string, readonly string[]])[] = [
  [
    "Create a VM, install it from a CD, and keep the result as the snapshot S0:",
    ["mkdir -p ~/PROG/ws10 && cd ~/PROG/ws10", "PROG -c 8 -m 4G @create WS10 /iso/image.iso @run @backup"],
  ],
  ["Start again from a snapshot:", ["PROG @restore S2 @run"]],
  [
    "Create a VM from a cloud image, and log in:",
    [
      "PROG create web --from debian-12-genericcloud-amd64.qcow2 --cloud-init --user=me",
      "PROG run --detach --ssh --wait=ssh",
      "PROG ssh",
    ],
  ],
  [
    "Add your SSH keys to an installed system, and log in through a forward, without a display:",
    [
      "PROG --rescue=auto job add-ssh-keys",
      "PROG -p '' -f tcp:127.0.0.1:5555-:22 run &",
      "ssh -p 5555 root@127.0.0.1",
    ],
  ],
  [
    "Back up every day, keeping seven snapshots:",
    ["PROG timer --install --on-calendar=daily backup --prune --keep-daily=7 --lock-timeout=600"],
  ],
];

export const SEE_ALSO: readonly string[] = [
  "bash(1)",
  "pigz(1)",
  "qemu(1)",
  "qemu-img(1)",
  "remote-viewer(1)",
  "restic(1)",
  "systemd.time(7)",
];
