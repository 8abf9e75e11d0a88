import type { Ended } from "./exit-reason.ts";

/** A run whose end this process has recorded. */
export interface NotedEnd {
  hostdir: string;
  ended: Ended;
}

/** Those whose hooks have not run yet: they run without the VM's lock, as they may call this program. */
const ends: NotedEnd[] = [];

export const noteEnd = (hostdir: string, ended: Ended): void => void ends.push({ hostdir, ended });

export const takeEnds = (): NotedEnd[] => ends.splice(0);
