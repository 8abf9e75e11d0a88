/**
 * The reference that belongs to no single command, option or setting. PROG stands for the program's name, `…` in
 * backquotes for input and file names.
 */
import { ARCH, type ArchFacts } from "../../machine/arch.ts";
import { ARCHES, type Arch } from "../../machine/types.ts";
import { formatSince, QEMU_FEATURES } from "../../qemu/features.ts";

import { describeSlot, PLACES, type Role } from "../../qemu/layout.ts";
import { VM_EVENTS } from "../../store/history.ts";
import { WORK } from "../../store/layout.ts";
import { VM_HOOKS } from "../../vm/hooks.ts";

/** A paragraph, an item (its name, and what it means), or lines to type. */
export type Block = string | readonly [name: string, text: string] | { typed: readonly string[] };

export interface Topic {
  title: string;
  blocks: readonly Block[];
}

const PLACED: readonly (readonly [Role, string])[] = [
  ["card", "graphics card"],
  ["rng", "random numbers"],
  ["disk", "first disk, or its controller"],
  ["nic", "first network card"],
];

/** From the table that the argument list is built from. */
function describeArch(name: Arch): readonly [string, string] {
  const { machineType, boots, biosName, diskBus } = ARCH[name];
  const ways = (boots as readonly ("bios" | "uefi")[]).map(
    (way) => `${way === "uefi" ? "UEFI" : biosName} (\`${machineType[way].split(",")[0]}\`)`,
  );
  return [name, `boots by ${ways.join(" or ")}; default disk: ${diskBus}`];
}

const archesWith = (fact: "tpmDevice" | "secureBoot" | "generationId"): string =>
  ARCHES.filter((name) => (ARCH[name] as ArchFacts)[fact] !== undefined).join(", ");

export const TOPICS: readonly Topic[] = [
  {
    title: "SNAPSHOTS",
    blocks: [
      "A snapshot is the directory `HOSTDIR/backups/NAME`: disk images, UEFI variables, the state of a TPM, settings, `SHA256SUMS` and `manifest.json`. It appears under its name when it is complete, or not at all. `LAST` is a symlink to the newest.",
      [
        "gz",
        "whole disks compressed by pigz; the default. `restore` verifies the checksums and decompresses. By hand: `unpigz < backups/S0/disk-0.img.gz > disk-0.img`",
      ],
      [
        "qcow2",
        "compressed images (`--format=qcow2`, SNAPSHOT_FORMAT): the first is full, the next ones are incremental on their parent. `restore` makes overlays whose backing files are in the snapshot: at once, without using space. `restore --copy` makes standalone disks",
      ],
      "Incremental snapshots rely on dirty bitmaps in the working disks. After qemu was killed the bitmaps are invalid, and the next snapshot is full, or incremental on the restored one. `--full`, or a chain of SNAPSHOT_CHAIN snapshots, also makes a full one.",
      "A running VM is copied as of one point in time. The guest is paused for some hundredths of a second, in which the UEFI variables and the state of a TPM are copied as well; with the guest agent its filesystems are frozen for that moment. Blocks that the guest overwrites meanwhile are first copied beside the snapshot (copy-before-write). A full or slow disk there fails the snapshot, never the guest.",
      "`backup --ram` includes the RAM of a running guest: disks, UEFI variables, the TPM's state and RAM are of one point in time. `restore` then leaves the VM as if it had been suspended at that time: the next `run` (or `restore --run`) resumes the guest, once; `run --boot` boots it, `restore --no-ram` leaves the RAM out. The pause includes the copying of the used RAM. A qcow2 snapshot stores the RAM as it is, without holes, each time as a whole; a gz snapshot compresses it. Filesystems are not frozen. Only the same version of qemu resumes it, and with KVM only the same processor: elsewhere only the disks are restored, with a warning, and the guest boots. What qemu cannot save is refused (75): a mounted 9p share, a disk on NVME, one that is not in the snapshot, a guest of ppc64le, RAM that is not shared memory (SHARED_RAM). The RAM holds the guest's secrets, such as keys of encrypted disks. Versions of this program without this feature refuse such a snapshot, and those that depend on it.",
      "The manifest records the consistency: `offline` (the VM was off), `agent` (filesystems frozen), or `crash-consistent` (as after a power cut: no agent, or a guest that did not power off by itself).",
      "Each working disk is checked first. One that is missing, not a regular file, truncated, marked corrupt or rejected by `qemu-img check` is not backed up (74), and `--prune` then removes nothing.",
      "Internal snapshots (`qemu-img snapshot`) are kept only by gz snapshots of a VM that is off; `backup` warns. Images of `--image` are not included.",
      "A snapshot that others, or a working disk, depend on is not removed. `snapshots rm --merge` first merges its data into the snapshots that depend on it; under a working disk it stays until that disk is standalone (`restore --copy`). Restoring a qcow2 snapshot checks sizes, headers, small files and parents, but not all data: use `verify`.",
      "`restore` makes new working files beside the old ones and replaces these in one step. With `--inplace` that step is several renames; if interrupted, the next command completes it.",
      "`backups` may be a symlink to another filesystem. While that is not mounted, commands fail (74). Directories without a snapshot's files, such as `lost+found`, are ignored.",
      "Snapshots that an earlier program made have no checksums; `verify` says so. Parents are recorded by id and checksum. HOSTDIR may be moved or renamed.",
      "For cron: `--quiet` prints only warnings and errors; one line goes to the journal in any case. `--lock-timeout` waits for the VM's lock. If neither stdin nor stderr is a terminal, helper programs run with idle priority. Work that takes long logs its progress every 30 s, and every minute where that reads the same.",
    ],
  },
  {
    title: "REPOSITORY",
    blocks: [
      "Snapshots can be pushed to a restic(1) repository: set SNAPSHOT_REPO (a path, `sftp:`, `rest:`, `s3:`) and SNAPSHOT_PASSWORD_FILE in `~/.config/PROG.conf` or `/etc/PROG.conf`, and create the repository once with `restic init`.",
      {
        typed: [
          "PROG backup --push",
          "PROG snapshots --remote",
          "PROG prune --remote --keep-daily=30",
          "PROG verify --remote",
          "mkdir ws10 && PROG -d ws10 restore --from-remote",
          "PROG -d ws10 restore --from-remote --run",
          "PROG run --from-remote",
        ],
      },
      "Each snapshot is stored with its parents, so that it can be restored on its own; data that is already there is not sent again. A VM is identified by its UUID. In an empty directory the name counts: if several VMs have it, `restore` lists them and takes an id.",
      "What is fetched is checked (names, regular files, sizes, checksums) before it enters `backups`. An existing snapshot is never overwritten. Snapshots without a UUID come from older versions: `--by-name` includes them, `snapshots push NAME` tags one.",
      "Cloud storage needs its own variables (`AWS_ACCESS_KEY_ID` …): see restic's manual. A stale lock of a restic that was killed is removed by the next command that it would stop.",
    ],
  },
  {
    title: "EXPORT FORMAT",
    blocks: [
      "A tar archive (ustar; sizes in base 256 from 8 GiB on), whose headers all have mode 0600, owner 0 and time 0. The order is fixed, and `tar -x` and `sha256sum -c SHA256SUMS` can read it:",
      [
        "`vm-export.json`",
        "`version` (1), `tool`, `guest`, `vm` (UUID), `chain` (names of the snapshots, parents first), `files` (`snapshot`: position in `chain`, `name`, `bytes`, `sha256` if it was known before)",
      ],
      ["`0/disk-0.qcow2` …", "the files of each snapshot in the order of `files`, as in `backups/`"],
      ["`SHA256SUMS`", "a line for each member before it; then two blocks of zeroes, and nothing after them"],
    ],
  },
  {
    title: "EVENTS",
    blocks: ["What `PROG events` shows, and the member `event` of its JSON:", ...Object.entries(VM_EVENTS)],
  },
  {
    title: "HOOKS",
    blocks: [
      "`HOOK.hook` in HOSTDIR, else in `~/PROG/scripts/jobs`, is a bash script that runs on this host, in HOSTDIR, sourced with `-efu` and the settings as variables, as a job's hooks are. No lock of the VM is held: a hook can call `PROG`, which runs no hooks then (`VM_HOOK` is set). One that another user can write to is refused (78).",
      ...Object.entries(VM_HOOKS),
      "A failure of `on-…` is a warning. A hook that has not ended after HOOK_TIMEOUT seconds (60, of backups 600) is ended by SIGTERM, five seconds later by SIGKILL, with all that it has started, except what has made a session of its own (setsid(1)); that is a failure, too. The end of a run is noticed by the command that waits for it or ends it, else by the next one that changes the VM: that one runs `on-stop` or `on-crash`.",
      ["VM_PID", "of `on-start`: process ID of qemu"],
      [
        "VM_END, VM_HOW",
        "of `on-stop` and `on-crash`: the word of `lastEnd` in `status --json`, and how, in words",
      ],
      [
        "VM_OUTCOME, VM_SNAPSHOT, VM_STATUS, VM_MESSAGE, VM_BYTES, VM_SECONDS",
        "of `post-backup`, as of SNAPSHOT_NOTIFY; VM_SNAPSHOT also of `pre-backup`, if a name was given",
      ],
    ],
  },
  {
    title: "JOBS",
    blocks: [
      "A job modifies an installed system while the VM is off. `NAME.job` runs as root in the rescue system, with the VM's disks attached. `NAME.pre` and `NAME.post` beside it are bash scripts that run on this host before and after it.",
      "The job is sourced by bash with `-efu` in INDIR: globbing is off, and any failing command ends it. `run COMMAND` logs and runs a command, `fatal MESSAGE` fails the job. If `.in/DEBUG` exists, `set -x` is on.",
      [
        "INDIR",
        "`WORKDIR/.in`, read-only in the rescue. Read large files in large blocks: each read takes about 3 ms",
      ],
      [
        "OUTDIR",
        "`WORKDIR/.out`, writable. The output of the job is kept there as `job.log`. The next job empties it: copy what is to be kept in `NAME.post`. Modes are those that the job set, without setuid and setgid bits; a symlink out of the directory becomes a file with its target",
      ],
      ["MIRROR", "the package mirror, if there is one"],
      [
        "RECOVERYDIR",
        "on a rescue CD, the directory with the files of `rescue build --iso --recovery`; else empty",
      ],
      [
        "mount-system",
        "mounts the installed system at `/mnt/system1`, by its fstab; opens LUKS with `.in/luks.key`, or asks on the terminal. Status 1: a filesystem could not be mounted",
      ],
      "Hooks are run in HOSTDIR with your locale, umask and environment. They see each setting as a variable, also HOSTDIR, WORKDIR, LIBEXEC and PROFILES, and the variables, arrays and functions of your `PROG.conf`.",
      "The exit status of the job is that of the program. A rescue that dies or does not shut down cleanly is status 74. `--timeout` counts from the start of the job. Before, the rescue has RESCUE_START_TIMEOUT seconds (120) to start it; saving its state first has at most 120 s of its own, after which the rescue is booted. Ending it and unmounting the disks takes up to 15 s more. Ctrl-C ends the job, unmounts the disks and shuts the rescue down; a second one kills it.",
      ["add-ssh-keys", "adds the keys of SSHKEYS to `authorized_keys` of root in the installed system"],
      ["run-ssh", "lets these keys into the rescue, and waits until `WORKDIR/.out/RELEASE` is removed"],
      [
        "post-install",
        "runs your `post-install.sh` with the installed system mounted, ready for chroot, in DESTDIR: `/mnt/system1`, or `/mnt/target` with SETUP_ROOTDEV",
      ],
      [
        "new-identity",
        "gives the installed Linux system a host name (that of the VM), a machine-id and SSH host keys of its own; `clone` runs it",
      ],
      [
        "grow-fs",
        "grows the last partition, LUKS, LVM and the filesystem of each disk to the disk's size; `disk resize --fs` runs it for one",
      ],
      "The rescue system has bash, busybox and what this host has of e2fsprogs, xfsprogs, btrfs-progs, dosfstools, lvm2, mdadm, cryptsetup and OpenSSH. Build it again after an update of PROG; a profile's settings and your own files in it are kept.",
      "The first job boots the rescue and saves its state in `~/.cache/PROG/warm` (about 250 MiB each, and the same in /dev/shm meanwhile); later ones resume it: they map the file of its RAM, and share what is in the host's memory. The state is made again when qemu, the kernel, the processor or an argument changes. `RESCUE_WARM=off` boots each time, and so does a host without space for a state. Jobs of UEFI guests run under UEFI, and have a state for each set of UEFI variables; the three used last are kept; `doctor` shows the size of all, and the command that removes them (a job boots then). When the guest or a job changes a variable, such as a boot entry, the next job boots. Under Secure Boot the rescue's kernel would load none of its modules: jobs of such guests boot it without their firmware, and do not see the UEFI variables.",
    ],
  },
  {
    title: "THE SCREEN",
    blocks: [
      "SPICE listens on `localhost:5900`, or the next free port. In a desktop session `remote-viewer` is opened; elsewhere the commands for viewing from another machine are printed. The password is in `WORKDIR/spice.password` and `WORKDIR/spice.vv`. `-p ''` (an empty port) turns the display off; `screenshot` works nevertheless.",
      "`DISPLAY_PROTOCOL=vnc` uses VNC: passwords of eight characters, ports from 5900, no encryption. `SPICE_SOCKET=1` listens on a unix socket in WORKDIR: `ssh -L 5900:WORKDIR/spice.sock USER@HOST`, then `remote-viewer spice://localhost:5900`. SPICE_TLS_DIR encrypts the port.",
    ],
  },
  {
    title: "NETWORK",
    blocks: [
      "A VM has one card on qemu's user-mode network; `nic` and NETWORKS give it up to four. Each element of NETWORKS is a card: `NETWORKS=( user none user,link=down )` are the cards 1 and 3, the latter with its cable unplugged. While NETWORKS is empty, `--netdev` and `--no-netdev` (USENETDEV) decide on card 1; else they override its first element for one command line.",
      ["user", "qemu's user-mode network: no rights needed, slow, IPv4 by NAT"],
      [
        "passt",
        "passt(1): the guest has this host's addresses, also of IPv6; needs the package `passt`. FORWARDS work, without an address of the guest",
      ],
      [
        "bridge=br0",
        "a bridge of this host, by qemu-bridge-helper, which must be setuid root; root allows bridges in `/etc/qemu/bridge.conf`: `allow br0`. `PROG doctor` names what is missing",
      ],
      [
        "tap=NAME",
        "a tap device of this user: `sudo ip tuntap add dev NAME mode tap user USER && sudo ip link set NAME up`",
      ],
      [
        "net=NAME",
        "a network among your VMs, without root. It starts with its first VM and ends with the last one. No other user can join it, and this host is not on it",
      ],
      "On `net=lab` each VM gets by DHCP a fixed address and its name: `ping web` or `ping web.lab` reaches the VM `web`. The addresses are 10.X.Y.16 to 254, by the network's name; 10.X.Y.1 is DHCP server, name server and router. The outside is reachable unless the members say `net=lab,outside=off`: all of them, as a running network has one or the other. This needs user namespaces and the packages `dnsmasq-base`, `iproute2`, `passt` and `nftables` (`outside=off`: without the last two). Addresses are recorded in `~/.cache/PROG/networks`; `PROG status` and `PROG nic list` show them. Of several VMs with the same name, the first on the network has it, and the others get a number: `web-2`. A server of a running network that has exited is started again for the next member that joins; `PROG status` and `PROG doctor` name it, as they name a `passt` that has exited.",
      { typed: ["PROG --net=net=lab create web", "PROG --net=net=lab --net=user run"] },
      "With user networking the guest reaches this host's `127.0.0.1` as `10.0.2.2`. A forward such as `tcp::5555-:22` listens on all addresses; `tcp:127.0.0.1:5555-:22` on this host only.",
      "A card's place on the PCI bus follows from its number, its MAC address from the VM's UUID (`mac=` sets another one): so the guest's names of its interfaces stay the same.",
      "The first card boots from the network after the CD and all disks, or before them with `--netboot` (NETBOOT=first), or never (NETBOOT=off). In the user-mode network qemu answers by DHCP and TFTP: NETBOOT_DIR is the directory of its files, NETBOOT_FILE the one that is booted: a PXE program for BIOS, an EFI program for UEFI, or an iPXE script.",
      { typed: ["PROG set NETBOOT_DIR=/srv/tftp NETBOOT_FILE=pxelinux.0", "PROG --netboot run"] },
      "Jobs never boot from the network. U-Boot (riscv64 without UEFI) decides on its own. The card's boot ROM is in the package `ipxe-qemu` (ALT, Fedora: `ipxe-roms-qemu`); `PROG doctor` looks for it.",
    ],
  },
  {
    title: "HARDWARE",
    blocks: [
      "Each device of a VM has a fixed place on the PCI bus, whether or not a CD, a display, shares or further disks are there: names that the guest derives from it, as of network interfaces, stay. `guest.env` records the layout (LAYOUT=2). Places on a PC with BIOS and with UEFI:",
      ...PLACED.map(([role, what]) => {
        const { bios, uefi } = describeSlot(role);
        return [what, `slot ${bios}, ${uefi}`] as const;
      }),
      `At most ${PLACES.disks} disks have a place of their own (VIRT, NVME), or controllers of several disks (AHCI: 6, SCSI: 64). The number in the disk's name (\`disk-N.img\`) decides its place and serial number.`,
      "qemu reads and writes disk images on tmpfs by native requests (since Linux 6.6), elsewhere by io_uring, and by a pool of threads where the kernel or qemu does not have these, for disks on AHCI and USB, where these are slower, and for image files that end within a sector of 512 bytes, as foreign compressed ones may: qemu 7.2 would hang. `DISK_AIO=threads` always uses threads, `DISK_AIO=io_uring` requires io_uring. `doctor` shows what is used, `status` what the running VM has. In each case a flush of the guest returns when its data is on the host's disk.",
      "The guest's RAM is shared memory, so that `suspend` can save it at once (SHARED_RAM; off: private to qemu). With KVM such memory has huge pages only if the kernel has them for shared memory: `echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled`, as root. `WORKDIR/run-vm.sh` starts the VM with private memory.",
      `Guests of ${archesWith("generationId")} have a VM generation ID (vmgenid). It changes with the working files: by restore, clone and import, not by a restart or suspend. A kernel that sees it change gets new random numbers (Linux since 5.18), and other software notices that it is a copy.`,
      "VMs of the earlier program, and of versions of PROG before generation IDs, have the same places (LAYOUT=1). VMs of versions of PROG before layouts have none recorded: qemu places their devices (LAYOUT=0).",
      "The first network card of a new VM has a MAC address of its own, derived from the VM's UUID (MAC=auto), and the guest sees the UUID. `status --json` shows the address. `identity --new` in a copy of a VM changes both. VMs without MAC in `guest.env` have qemu's default address, the same in all VMs.",
      `\`--tpm\` (TPM=2.0) adds a TPM 2.0, emulated by \`swtpm\`, to guests of ${archesWith("tpmDevice")}. Its state is in \`WORKDIR/${WORK.tpm}\` (mode 0700) and in every snapshot; restoring a snapshot without it removes it, \`--no-tpm\` keeps it. swtpm starts before qemu and exits with it; the connection between them is inherited, so that no other process can use it; \`status\` reports an swtpm that has exited before. \`run\` and \`backup\` refuse a state that is not a regular file of at most 1 MiB with swtpm's header (exit 74), and warn of a missing one. The state is not encrypted, and the TPM has no certificate of a manufacturer. Jobs, which run another system, do not have the TPM.`,
      `\`--secure-boot\` (SECURE_BOOT=on) boots UEFI guests of ${archesWith("secureBoot")} with a firmware and keys that qemu's firmware descriptors name (\`secure-boot\`, \`enrolled-keys\`): it refuses programs that no enrolled key has signed. A new VM gets a copy of the distribution's enrolled variables. A VM that was created without Secure Boot keeps its variables, in which no key is enrolled: \`run\` warns, and names the command that starts with new ones. With enrolled keys most firmwares enforce Secure Boot after \`--no-secure-boot\`, too, until new variables are made: \`run\` warns of that, too, and \`status\` shows both. With OVMF_CODE and OVMF_VARS both files are yours; on a PC the code must then be a build that requires SMM.`,
      { typed: ["PROG create --uefi --secure-boot --tpm win11 win11.iso"] },
    ],
  },
  {
    title: "ARCHITECTURES",
    blocks: [
      "`--arch` (QEMUARCH) chooses the guest's architecture when the VM is created. A PC can later be run as the other PC only. Names such as `amd64`, `arm64`, `armv7l` and `ppc64el` are understood. `PROG doctor` names missing packages.",
      ...ARCHES.map(describeArch),
      "A job needs a rescue system of the guest's architecture. For another one than this host's, build it from packages unpacked in a directory; nothing in it is executed. In Debian:",
      {
        typed: [
          "tools=busybox-static,bash,coreutils,kmod,util-linux,mount,fdisk,grep,sed,tar,gzip",
          "tools=$tools,e2fsprogs,dosfstools,openssh-server,iproute2,procps",
          "mmdebstrap --variant=extract --arch=arm64 --include=linux-image-arm64,$tools bookworm arm64",
          "PROG --arch=aarch64 rescue build --root=arm64",
        ],
      },
      "Guests on LVM, LUKS, RAID, XFS or Btrfs need `lvm2`, `cryptsetup-bin`, `mdadm`, `xfsprogs` or `btrfs-progs` as well. Kernels of the others: `linux-image-armmp` (armhf), `linux-image-powerpc64le` (ppc64el), `linux-image-riscv64` (riscv64, from trixie on).",
    ],
  },
  {
    title: "QEMU VERSIONS",
    blocks: [
      "`PROG doctor` says what the installed qemu lacks.",
      ...QEMU_FEATURES.map(({ name, since }) => [name, formatSince(since)] as const),
    ],
  },
  {
    title: "TRUST",
    blocks: [
      "A VM's directory is like a Makefile: `run` and `job` do what its owner wrote there. It counts as yours if you or root own it and no other user can write to it (your private group may); the same holds for each of `guest.env`, `PROG.defaults`, jobs and hooks. A foreign directory can only be read: other commands refuse it (73) and name its owner.",
      "`status`, `list`, `snapshots`, `verify`, `restore`, `backup`, `config`, `doctor`, `-h` and completion run no program that a directory names, and touch nothing outside it and its working directory. `status` lists what a VM reaches outside its directory by its own settings and those of its running or saved machine: shares, images, backing files, the CD, other files, networks, ports for other hosts, directories, devices and commands of forwards, extra arguments, jobs.",
      "Names in data files are never paths; only regular files of limited size are read, and no symlinks followed. Text from guests, images and repositories is printed without control characters; `exec` and `console` pass bytes through.",
    ],
  },
  {
    title: "JAIL",
    blocks: [
      "A guest that takes over its qemu has what that qemu has. Where bubblewrap (`bwrap`) is installed and works, that is little (JAIL=auto, the default): qemus of VMs, jobs, `verify --boot` and backups get mount, PID, IPC and UTS namespaces, a root that holds only `/usr`, the working directory, the images and shares of this VM, `/dev/kvm`, `/dev/urandom` and a `/proc` of its own, none of the caller's descriptors, and of its environment TZ only, no new privileges, no core dumps and message queues, and at most 4096 threads if root has started it. In the working directory, qemu writes to disks, UEFI variables, logs and sockets. All else there is read-only, as is the VM's directory with its snapshots, which is a share by default (SHARES), and once qemu has created its sockets, the directory is, too, if root has started it: with `--inplace` it has the VM's settings, jobs and hooks. Where the kernel and setpriv (util-linux 2.40) have Landlock, that holds for a user's qemu as well, from its start on: all that it can create is sockets, and files in writable shares. Elsewhere a user's qemu can create files in the directory: keep the working files in TMPDIR then. Paths are the same as outside.",
      "Without a card on the user-mode network or a tap device, a display on a port and arguments in `PROG.defaults`, qemu has no network at all: passt and networks among VMs work through descriptors. A card for the user-mode network is then added from the next run on. With the host's network, a user's qemu sees the directory of `/etc/resolv.conf`, mostly all of `/etc` that its user may read, as name servers change.",
      "Started by root, qemu runs as a user of its own for each working directory (from uid 1900000000 on; no account is needed). Its files stay root's: it keeps the capability to open them (CAP_DAC_OVERRIDE), and the root of its own is what separates VMs; for a writable share of yours, CAP_CHOWN, CAP_FOWNER and CAP_FSETID as well; with a network of the host, CAP_NET_BIND_SERVICE, for forwards of ports below 1024; for a tap device, CAP_NET_ADMIN. Guests cannot create device nodes in shares. With files on NFS, FUSE and other filesystems that other users may not read, it stays root, without other capabilities.",
      "Disks, CDs and snapshots that are added while the guest runs are passed by descriptor. An image added that way must not have a backing file. Name servers that the host gets while a guest runs are used at once; if root has started it, only where `/etc/resolv.conf` is a link into `/run`, else from its next start on.",
      "`status` shows what confines a running qemu, and why not more; `doctor` what this host can do. Less is in force without bubblewrap, where the kernel or a container forbids namespaces to the caller, for a share of `/`, for over 200 files in the working directory, for a qemu outside `/usr` that needs more than what is installed with it, for arguments in `PROG.defaults` that may name files, displays or networks (no new privileges only), and for those that start a setuid helper (nothing). `--no-jail`, or JAIL=off in `PROG.conf`, starts qemu without one: hooks that have qemu open or write further files by its monitor need that. JAIL is read from `PROG.conf` only, not from a VM's `guest.env`.",
    ],
  },
  {
    title: "COMPATIBILITY",
    blocks: [
      "`PROG.conf`, `guest.env`, `PROG.defaults`, `check-media`, snapshots, jobs and command lines of the earlier bash scripts work. Snapshots made here can be restored there.",
      "A UEFI guest boots with firmware for the size of its variables: `OVMF_CODE.fd` for 131072 bytes, `OVMF_CODE_4M.fd` for 540672. To create VMs for both programs, set `OVMF_CODE=/usr/share/OVMF/OVMF_CODE.fd` and `OVMF_VARS=/usr/share/OVMF/OVMF_VARS.fd`.",
      "Differences: `restore` and `destroy` refuse while the VM is running; `backup` then makes a live snapshot. A killed guest fails `run`. SPICE has a password (`SPICE_TICKETING=off`: none, on loopback only). The CPU is the host's (`CPU=kvm64`: as before). `guest.env` starts no program. Hooks must be writable by you or root only. Old copies of the bundled jobs in `PROFILES/scripts/jobs` are ignored. `mount-system` fails if `/boot` or another filesystem of the fstab cannot be mounted.",
      "Working files without the mark of this program are refused until `PROG adopt`. The next snapshot after that is crash-consistent until the guest has been run once.",
    ],
  },
];
