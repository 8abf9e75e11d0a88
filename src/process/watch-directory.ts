import { watch, type FSWatcher } from "node:fs";

/** How often a directory is looked at. */
export interface WatchLimits {
  /** Events may get lost. */
  everyMs: number;
  /** Where the kernel gives no events. */
  unwatchedMs?: number;
}

/**
 * Calls when something in a directory changes (inotify(7)), and at least every `everyMs`. Not every directory can be
 * watched: Bun cannot where the path has a backslash, and the kernel's watches are counted.
 * @param onChange gets the name of what changed; undefined when that is not known, or only time has passed
 */
export function watchDirectory(
  path: string,
  { everyMs, unwatchedMs = everyMs }: WatchLimits,
  onChange: (name?: string) => void,
): Disposable {
  let timer: ReturnType<typeof setInterval> | undefined;
  const lookEvery = (ms: number): void => {
    clearInterval(timer);
    timer = setInterval(() => onChange(), ms);
  };
  let watcher: FSWatcher | undefined;
  try {
    watcher = watch(path, (_event, name) => onChange(name ?? undefined));
    watcher.on("error", () => lookEvery(unwatchedMs));
  } catch {
    // Looked at by the clock, then.
  }
  lookEvery(watcher ? everyMs : unwatchedMs);
  return {
    [Symbol.dispose]: () => {
      watcher?.close();
      clearInterval(timer);
    },
  };
}
