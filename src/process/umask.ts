let callers: number | undefined;

/** From here on, what this program and its tools create is the caller's alone; the caller's own umask is remembered. */
export function takeUmask(): void {
  callers = process.umask(0o077);
}

/** The umask that the program was started with: for files that the user asked for, and for the user's programs. */
export const callerUmask = (): number => callers ?? process.umask();

/** Runs `work` under the caller's umask. It must be synchronous: the umask belongs to the whole process. */
export function underCallerUmask<T>(work: () => T): T {
  const own = process.umask(callerUmask());
  try {
    return work();
  } finally {
    process.umask(own);
  }
}
