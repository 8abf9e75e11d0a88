/** What the files of one of many VMs say, as far as they can be read: without the command line's options, and without bash. */
import { basename } from "node:path";
import { loadUsable } from "../config/load.ts";
import { parseSetting, type Settings } from "../config/schema.ts";
import { VmError } from "../lib/errors.ts";
import { fileError } from "../store/files.ts";
import { describeGone, resolveWork, type Work } from "../store/workdir.ts";
import type { ProcessFacts } from "./context.ts";
import { sourcesOf } from "./find.ts";

export interface OwnSettings {
  /** GUESTNAME, else the directory's name. */
  name: string;
  work: Work;
  /** Defaults in place of invalid values; undefined: nothing can be read. */
  settings: Settings | undefined;
  /** Undefined: not known. */
  labels: string[] | undefined;
  /** Why the settings, or some of them, cannot be used. */
  error: VmError | undefined;
}

/** Never throws. */
export async function readOwnSettings(context: ProcessFacts, hostdir: string): Promise<OwnSettings> {
  const own = { ...context, hostdir, options: { settings: {}, additions: {}, hostdir } };
  try {
    const work = resolveWork(hostdir);
    const sources = sourcesOf(own, hostdir, work, false);
    const { settings, written, unread, error } = await loadUsable(sources);
    const lost = work.state === "gone" && sources.guestEnv === undefined;
    const known = !unread && !lost && "value" in parseSetting("LABELS", written.LABELS);
    return {
      name: settings.GUESTNAME || basename(hostdir),
      work,
      settings,
      labels: known ? settings.LABELS : undefined,
      error: error ?? (lost ? new VmError("io", describeGone(work)) : undefined),
    };
  } catch (error) {
    return {
      name: basename(hostdir),
      work: { state: "none" },
      settings: undefined,
      labels: undefined,
      error: error instanceof VmError ? error : fileError(`cannot open ${hostdir}`, error),
    };
  }
}
