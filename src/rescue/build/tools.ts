/** What no rescue can do without. */
export const REQUIRED_TOOLS = ["busybox", "bash"] as const;

/**
 * Programs copied from the host if it has them; busybox provides others. Only programs that neither has are reported
 * as missing.
 */

export const TOOLS: readonly string[] = [
  // coreutils
  "basename cat chgrp chmod chown chroot cksum comm cp cut date dd df dirname du echo env expand",
  "expr false fold head hostid id install join link ln ls md5sum mkdir mkfifo mknod mktemp mv nice",
  "nohup nproc numfmt od paste pr printf pwd readlink realpath",
  "rm rmdir seq sha1sum sha256sum sha512sum",
  "shred shuf sleep sort split stat stdbuf stty sum sync tac tail tee test timeout touch tr true",
  "truncate tsort tty uname uniq unlink wc who whoami yes [",
  // util-linux
  "mount umount blkid lsblk findmnt losetup fdisk sfdisk blkdiscard blockdev wipefs mkswap swapon",
  "swapoff switch_root setsid setpriv flock unshare nsenter mountpoint partx fstrim hwclock",
  "dmesg agetty hexdump script uuidgen",
  // kmod
  "kmod insmod rmmod lsmod modinfo depmod",
  "grep egrep fgrep sed gawk awk find xargs diff cmp tar cpio gzip gunzip zcat xz unxz zstd unzstd",
  "bzip2 bunzip2 lz4 rsync less file",
  "ps pgrep pkill kill top free fuser killall lsof ip ping ss",
  "ssh ssh-keygen scp sftp sshd dropbear dropbearkey",
  // Filesystems
  "e2fsck fsck fsck.ext2 fsck.ext3 fsck.ext4 mke2fs mkfs mkfs.ext2",
  "mkfs.ext3 mkfs.ext4 tune2fs resize2fs",
  "dumpe2fs debugfs e2label chattr lsattr",
  "mkfs.xfs xfs_repair xfs_growfs xfs_info xfs_admin xfs_db xfs_io xfs_spaceman fsck.xfs",
  "btrfs btrfstune mkfs.btrfs fsck.btrfs",
  "mkfs.fat mkfs.vfat fsck.fat fsck.vfat fatlabel",
  // Volumes
  "lvm lvchange lvconvert lvcreate lvdisplay lvextend lvreduce lvremove",
  "lvrename lvresize lvs lvscan",
  "pvchange pvcreate pvdisplay pvmove pvremove pvresize pvs pvscan",
  "vgcfgbackup vgcfgrestore vgchange vgck vgcreate vgdisplay",
  "vgexport vgextend vgimport vgimportclone",
  "vgmknodes vgreduce vgremove vgrename vgs vgscan",
  "dmsetup cryptsetup mdadm efibootmgr parted partprobe sgdisk",
  "chpasswd useradd usermod groupadd passwd",
].flatMap((line) => line.split(" "));

/** Optional, and not reported as missing. */
export const EXTRA_TOOLS: readonly string[] = [
  "mkfs.f2fs fsck.f2fs mkfs.exfat fsck.exfat mkfs.ntfs ntfsfix ntfs-3g",
  "ntfsresize jfs_fsck fsck.jfs mkfs.jfs",
  "thin_check thin_repair cache_check",
].flatMap((line) => line.split(" "));

/** Programs that sshd starts by a built-in path. */
export const HELPERS: readonly string[] = [
  "/usr/lib/openssh",
  "/usr/libexec/openssh",
  "/usr/lib/ssh",
  "/usr/libexec",
].flatMap((directory) => ["sftp-server", "sshd-session", "sshd-auth"].map((name) => `${directory}/${name}`));

/** Libraries opened at run time (dlopen), not named in headers; found beside libc. */
export const LATE_LIBRARIES = ["libgcc_s.so.1", "libnss_files.so.2", "ossl-modules/legacy.so"] as const;

/** Files and directories copied as they are. */
export const DATA: readonly string[] = [
  "/etc/mke2fs.conf",
  "/usr/lib/locale/C.utf8",
  "/usr/lib/locale/C.UTF-8",
  ...["/usr/share/terminfo", "/usr/lib/terminfo", "/lib/terminfo", "/etc/terminfo"].flatMap((directory) =>
    ["linux", "vt100", "vt220", "xterm", "xterm-256color"].map((name) => `${directory}/${name[0]}/${name}`),
  ),
];

/** Applets that are not linked: bash is the shell, poweroff is immediate, modprobe is installed by init. */
export const NO_APPLETS: readonly string[] = [
  "sh",
  "init",
  "linuxrc",
  "halt",
  "poweroff",
  "reboot",
  "modprobe",
];
