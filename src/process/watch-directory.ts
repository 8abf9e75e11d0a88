import { watch, type FSWatcher } from "node:fs";

/** Polling intervals. */
export interface WatchLimits {
  /** Besides inotify, because events may get lost. */
  everyMs: number;
  /** Without inotify. */
  unwatchedMs?: number;
}

/**
 * Calls `onChange` when an entry of a directory changes (inotify(7)), and at least every `everyMs`. Not every directory can
 * be watched: Bun cannot if the path has a backslash, and the kernel limits the number of watches.
 * @param onChange receives the name of the entry; undefined if unknown, or called by the timer
 */
export function watchDirectory(
  path: string,
  { everyMs, unwatchedMs = everyMs }: WatchLimits,
  onChange: (name?: string) => void,
): Disposable {
  let timer: ReturnType<typeof setInterval> | undefined;
  const pollEvery = (ms: number): void => {
    clearInterval(timer);
    timer = setInterval(() => onChange(), ms);
  };
  let watcher: FSWatcher | undefined;
  try {
    watcher = watch(path, (_event, name) => onChange(name ?? undefined));
    watcher.on("error", () => pollEvery(unwatchedMs));
  } catch {
    // Polled instead.
  }
  pollEvery(watcher ? everyMs : unwatchedMs);
  return {
    [Symbol.dispose]: () => {
      watcher?.close();
      clearInterval(timer);
    },
  };
}
