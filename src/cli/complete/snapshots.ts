import { resolve } from "node:path";
import { formatTimestamp } from "../../lib/time.ts";
import { listSnapshots, readDescription } from "../../store/snapshots.ts";
import { resolveHostdir } from "../../store/workdir.ts";
import type { ProcessFacts } from "../../vm/context.ts";
import type { Candidate } from "./values.ts";

/** Snapshots of the VM, newest first. */
export function snapshotCandidates({ cwd, options }: ProcessFacts): Candidate[] {
  return listSnapshots(resolveHostdir(resolve(cwd, options.hostdir ?? ".")))
    .toReversed()
    .map(({ name, dir, made }) => ({
      text: name,
      help: () => `${formatTimestamp(made)} ${readDescription(dir)}`.trim(),
    }));
}
