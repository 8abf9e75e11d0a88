/**
 * Prefixes of the nodes that a live snapshot adds to a running qemu. They tell the next command what a killed one has
 * left, and how far it had got.
 */
export const NODE = {
  /** Image for copy-before-write data. */
  fleece: "vm-fleece-",
  /** Copy-before-write filter between the guest and its disk. The guest was running before. */
  filter: "vm-cbw-",
  /** The same for a guest that was paused before: it must not be resumed. */
  heldFilter: "vm-held-",
  /** The disk at the point in time. Added after the guest is resumed. */
  access: "vm-access-",
  /** A disk that is not attached to the guest. */
  idle: "vm-idle-",
  /** Image of the snapshot. */
  target: "vm-target-",
  /** No image: the guest, which was running, is paused for a snapshot with RAM. */
  paused: "vm-paused",
  /** Target of the job that finds allocated clusters. */
  scan: "vm-scan-",
} as const;

/** Bitmap of a disk's allocated clusters, while a snapshot is created. */
export const ALLOCATED = "vm-allocated";
