/**
 * Becomes the hook, once a shell has been started that kills its process group when this program dies: the kernel's signal at
 * a parent's death (prctl(2)) reaches the hook's shell only. A line in the pipe, and it has nothing to do.
 */
const WATCH = `
( (
  exec </dev/null >/dev/null 2>&1
  read -r line <&3 || kill -s KILL -- -$$
) & )
exec 3<&-
exec "$0" "$@"
`;

/** The words that start a session's first process so; descriptor 3 is the pipe (process/lifeline.ts). */
export const watchHook = (words: readonly string[]): string[] => ["/bin/sh", "-c", WATCH, ...words];
