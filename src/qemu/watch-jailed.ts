/**
 * The end of a qemu whose starter has died, in a root of its own. The kernel's signal at a parent's death (prctl(2)) does
 * not reach it there: bwrap has no right to signal another user's process, and the first process of a PID namespace ignores
 * a SIGTERM that it does not handle yet. So a shell watches beside bwrap until the starter closes a pipe.
 */

/**
 * $0 becomes bwrap, once the shell that watches it has been started. A line on stdin ends that one: nothing is to be done any
 * more. At end of file bwrap is stopped, so that it starts nothing meanwhile, and what it has started is ended. A process's
 * directory of /proc stays its own, also when its number is given to another.
 */
const WATCH = `
( (
  exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&-
  cd "/proc/$$" && ! read -r line <&9 && kill -STOP $$ || exit
  find_child() { child=; read -r child <"task/$$/children"; test -n "$child"; }
  find_child || kill -KILL $$
  kill -CONT $$
  tries=0
  while find_child; do
    tries=$((tries + 1))
    if test $tries -le 300; then kill -TERM $child; else kill -KILL $child; fi
    sleep 0.2
  done
) >/dev/null 2>&1 & ) 9<&0
exec "$0" "$@" </dev/null
`;

/** The words that start a jail's words so. Its stdin is the pipe. */
export const watchJailed = (words: readonly string[]): string[] => ["/bin/sh", "-c", WATCH, ...words];
