import type { JailStart } from "./jail.ts";

/**
 * What becomes of a qemu with a root of its own when its starter dies. The kernel's signal at a parent's death (prctl(2)) does
 * not reach it there: bwrap has no right to signal another user's process, and the first process of a PID namespace ignores
 * a SIGTERM that it does not handle yet. So a shell watches beside bwrap until the starter closes a pipe.
 */

/**
 * $0 becomes bwrap, once the shell that watches it has been started. A line on stdin ends that one: nothing is to be done any
 * more. At end of file it waits for bwrap, whose name is not a shell's, and does the rest. It keeps the other pipe open for
 * reading: bwrap would die of a closed one, and leave a child that waits for it. A process's directory of /proc stays its own,
 * also when its number is given to another.
 */
const watchUntil = (atEnd: string, infoFd: number): string => `
( (
  exec 3<&- 4<&- 5<&- 6<&- 7<&-
  cd "/proc/$$" && ! read -r line <&9 || exit
  read -r shell </proc/self/comm
  tries=0
  while read -r own <comm && test $((tries += 1)) -le 500 || exit; test "$own" = "$shell"; do sleep 0.02; done
  find_child() { child=; read -r child <"task/$$/children"; test -n "$child"; }
  ${atEnd.trim()}
) >/dev/null 2>&1 & ) 8</proc/self/fd/${infoFd} 9<&0
exec "$0" "$@" </dev/null
`;

/** bwrap is stopped, so that it starts nothing meanwhile, and what it has started is ended. */
const END_QEMU = `
  kill -STOP $$ || exit
  find_child || kill -KILL $$
  kill -CONT $$
  tries=0
  while find_child; do
    tries=$((tries + 1))
    if test $tries -le 300; then kill -TERM $child; else kill -KILL $child; fi
    sleep 0.2
  done
`;

/** bwrap is ended, for qemu to stay alone, as soon as its child is not another bwrap, which still needs it. */
const FREE_QEMU = `
  tries=0
  while read -r own <comm && test $((tries += 1)) -le 300; do
    find_child && read -r name <"/proc/$child/comm" && test "$name" != "$own" && kill -KILL $$ && exit
    sleep 0.2
  done
`;

const AT_END = { TERM: END_QEMU, none: FREE_QEMU };

/**
 * The words that start a jail's words so. Its stdin is the pipe.
 * @param whenOrphaned `none`: qemu keeps running
 */
export const watchJailed = (
  words: readonly string[],
  { infoFd, whenOrphaned }: Pick<JailStart, "infoFd" | "whenOrphaned">,
): string[] => ["/bin/sh", "-c", watchUntil(AT_END[whenOrphaned], infoFd), ...words];
