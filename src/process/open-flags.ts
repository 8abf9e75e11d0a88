/** Flags of open(2) without a constant in Node; equal on all architectures that this program runs on. */
export const O_CLOEXEC = 0o2000000;
/** Refers to a file without opening it. */
export const O_PATH = 0o10000000;
