let callers: number | undefined;

/** Sets umask 077 for files of this program and its tools, and saves the caller's umask. */
export function takeUmask(): void {
  callers = process.umask(0o077);
}

/** Umask that this program was started with: for files that the user requested, and for the user's programs. */
export const callerUmask = (): number => callers ?? process.umask();

/** Calls `work` with the caller's umask. Synchronous, because the umask applies to the whole process. */
export function underCallerUmask<T>(work: () => T): T {
  const own = process.umask(callerUmask());
  try {
    return work();
  } finally {
    process.umask(own);
  }
}
