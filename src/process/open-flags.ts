/** Flags of open(2) without a constant in Node; equal on all architectures that this program runs on. */
export const O_CLOEXEC = 0o2000000;
/** Refers to a file without opening it. */
export const O_PATH = 0o10000000;

/** With O_DIRECTORY: a file without a name. */
export const O_TMPFILE = 0o20000000;

/** Is this descriptor close-on-exec? @param fdinfo text of /proc/PID/fdinfo/FD (proc_pid_fdinfo(5)) */
export function isCloseOnExec(fdinfo: string): boolean {
  const flags = /^flags:\s*([0-7]+)$/m.exec(fdinfo)?.[1];
  return (Number.parseInt(flags ?? "0", 8) & O_CLOEXEC) !== 0;
}
