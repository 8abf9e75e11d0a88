const POWER = (action: string): string => `#!/usr/bin/busybox sh
# Nothing else runs that would have to be told: write all out, and go.
sync
exec /usr/bin/busybox ${action} -f
`;

/** Mount options, also used by the runner: without caching, so that writes reach the host at once. */
const SHARE_OPTIONS = "trans=virtio,version=9p2000.L,msize=104857600,cache=none";

/** Small files of the rescue: [path, text, mode]. */
export const RESCUE_FILES: readonly (readonly [path: string, text: string, mode: number])[] = [
  [
    "/etc/passwd",
    `root:x:0:0:root:/root:/bin/bash
sshd:x:74:74:sshd:/run/sshd:/bin/false
nobody:x:65534:65534:nobody:/:/bin/false
`,
    0o644,
  ],
  [
    "/etc/group",
    `root:x:0:
tty:x:5:
disk:x:6:
utmp:x:22:
sshd:x:74:
users:x:100:
nogroup:x:65534:
`,
    0o644,
  ],
  // Locked password; login by key only.
  ["/etc/shadow", "root:*:19000::::::\nsshd:*:19000::::::\nnobody:*:19000::::::\n", 0o600],
  ["/etc/shells", "/bin/sh\n/bin/bash\n", 0o644],
  ["/etc/hostname", "rescue\n", 0o644],
  ["/etc/hosts", "127.0.0.1 localhost rescue\n::1 localhost\n", 0o644],
  [
    "/etc/nsswitch.conf",
    `passwd: files
group: files
shadow: files
hosts: files dns
`,
    0o644,
  ],
  [
    "/etc/profile",
    `export PATH=/usr/sbin:/usr/bin
export LANG=C.UTF-8
PS1='rescue:\\w\\$ '
`,
    0o644,
  ],
  [
    "/etc/rescue/fstab",
    `proc /proc proc defaults
sysfs /sys sysfs defaults
devtmpfs /dev devtmpfs defaults
tmpfs /run tmpfs mode=755
tmpfs /tmp tmpfs mode=1777
`,
    0o644,
  ],
  [
    "/etc/rescue/shares",
    `out /tmp/.out 9p ${SHARE_OPTIONS},rw
in /tmp/.in 9p ${SHARE_OPTIONS},ro
`,
    0o644,
  ],
  [
    "/etc/modprobe.d/rescue.conf",
    // A PC has such a controller, but our machines have no disk on it.
    "blacklist ata_piix\n",
    0o644,
  ],
  // Without udev the tools must create device nodes themselves, and not wait for udev.
  [
    "/etc/lvm/lvm.conf",
    `devices {
	obtain_device_list_from_udev = 0
	external_device_info_source = "none"
	use_devicesfile = 0
}
global {
	use_lvmpolld = 0
	locking_type = 1
}
activation {
	udev_sync = 0
	udev_rules = 0
	monitoring = 0
}
backup {
	backup = 0
	archive = 0
}
`,
    0o644,
  ],
  [
    "/etc/ssh/sshd_config",
    `PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
HostKey /etc/ssh/ssh_host_ed25519_key
HostKey /etc/ssh/ssh_host_ecdsa_key
Subsystem sftp internal-sftp
PidFile /run/sshd.pid
`,
    0o600,
  ],
  ["/usr/sbin/poweroff", POWER("poweroff"), 0o755],
  ["/usr/sbin/halt", POWER("poweroff"), 0o755],
  ["/usr/sbin/reboot", POWER("reboot"), 0o755],
];

/** Directories of the rescue besides those of its files, with the empty one of sshd, whose path depends on its build. */
export const RESCUE_DIRECTORIES: readonly (readonly [path: string, mode: number])[] = [
  ...["/dev", "/proc", "/sys", "/run", "/mnt", "/etc", "/etc/rescue", "/var/log", "/var/lib", "/var/tmp"].map(
    (path) => [path, 0o755] as const,
  ),
  ...["/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/usr/share"].map((path) => [path, 0o755] as const),
  ...["/run/sshd", "/var/empty", "/var/empty/sshd", "/usr/share/empty.sshd", "/run/lock"].map(
    (path) => [path, 0o755] as const,
  ),
  ["/root", 0o700],
  ["/tmp", 0o1777],
];

/** Symlinks of a merged usr. */
export const LINKS: readonly (readonly [path: string, target: string])[] = [
  ["/bin", "usr/bin"],
  ["/sbin", "usr/sbin"],
  ["/lib", "usr/lib"],
  ["/lib64", "usr/lib64"],
  ["/var/run", "../run"],
  ["/var/lock", "../run/lock"],
  ["/etc/mtab", "../proc/self/mounts"],
  ["/usr/bin/sh", "bash"],
];
