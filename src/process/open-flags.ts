/** Flags of open(2) that Node has no names for; the same on every architecture that this program runs on. */
export const O_CLOEXEC = 0o2000000;
/** Names a file without opening it. */
export const O_PATH = 0o10000000;
