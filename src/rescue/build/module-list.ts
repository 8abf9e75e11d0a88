/** Required for a job to access its files. */
export const ESSENTIAL_MODULES = ["virtio_pci", "9p", "9pnet_virtio"] as const;

/**
 * Loaded before the rescue's state is saved, for the jobs that resume it. The first job waits for that: xfs and btrfs,
 * which take as long as all others together, are loaded when they are mounted.
 */
export const WARM_MODULES: readonly string[] = [
  "virtio_pci",
  "ahci",
  "virtio_scsi",
  "sd_mod",
  "nvme",
  "virtio_blk",
  "xhci_pci",
  "usb_storage",
  "virtio_net",
  "virtio_console",
  "virtio_rng",
  "9pnet_virtio",
  "9p",
  "af_packet",
  "loop",
  "ext4",
  "vfat",
  "nls_cp437",
  "nls_iso8859-1",
  "nls_ascii",
  "dm-mod",
  "dm-crypt",
];

/** All modules that are packed, with their dependencies; missing and built-in ones are ignored. */
export const MODULES: readonly string[] = [
  ...ESSENTIAL_MODULES,
  ...WARM_MODULES,
  // Machines and disks.
  "virtio_mmio virtio_net ata_piix sr_mod loop efivarfs af_packet ipv6",
  // Filesystems.
  "xfs btrfs vfat nls_cp437 nls_iso8859-1 nls_ascii nls_utf8 isofs udf squashfs overlay fuse",
  "f2fs jfs exfat ntfs3",
  // Device mapper and md.
  "dm-mod dm-crypt dm-snapshot dm-mirror dm-thin-pool dm-raid raid0 raid1 raid10 raid456 linear",
  // Ciphers and checksums, which the above request by crypto name.
  "aes_generic aesni-intel xts cbc ecb essiv sha256 sha512 sha256_generic sha512_generic",
  "sha256-ssse3 sha512-ssse3 algif_skcipher algif_hash af_alg crc32c_generic crc32c-intel",
  "xxhash_generic blake2b_generic",
].flatMap((line) => line.split(" "));
