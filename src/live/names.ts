/**
 * Names of what a live snapshot adds to a running qemu. By them the next command sees what a killed one has left, and
 * how far it had come.
 */
export const NODE = {
  /** Takes what the guest overwrites. */
  fleece: "vm-fleece-",
  /** Stands between the guest and its disk, and saves what is overwritten. The guest ran before. */
  filter: "vm-cbw-",
  /** The same for a guest that stood still before: it is not to be woken. */
  heldFilter: "vm-held-",
  /** Shows the disk as it was. Made when the guest runs again. */
  access: "vm-access-",
  /** The image that is written. */
  target: "vm-target-",
} as const;
