import { formatTable } from "../lib/table.ts";
import { JOB_FILES } from "../rescue/assets.ts";
import { listJobs, type ListedJob } from "../rescue/find-job.ts";
import { readSmall } from "../lib/read-file.ts";
import type { Context } from "../vm/context.ts";
import { openOwnVm } from "../vm/find.ts";

/** Prints the available jobs, with the first comment of each script. */
export async function printJobs(context: Context): Promise<void> {
  const { hostdir, settings } = await openOwnVm(context);
  const jobs = listJobs({ hostdir, profiles: settings.PROFILES, libexec: settings.LIBEXEC });
  const rows = jobs.map((job) => [job.name, job.place, describeJob(readScript(job))]);
  context.print(formatTable([["NAME", "FROM", "WHAT IT DOES"], ...rows]));
}

function readScript({ name, script }: ListedJob): string {
  if (script === undefined) return JOB_FILES[`${name}.job`] ?? "";
  try {
    return readSmall(script) ?? "";
  } catch {
    // `job NAME` reports why it cannot be read.
    return "";
  }
}

/** Pure: first sentence, or line, of a script's first comment that is neither `#!` nor for shellcheck. */
export function describeJob(script: string): string {
  for (const line of script.split("\n")) {
    const comment = /^#(?!!)\s*(.*)$/.exec(line)?.[1];
    if (comment === undefined && line.trim() !== "" && !line.startsWith("#!")) return "";
    if (comment && !comment.startsWith("shellcheck ")) return comment.replace(/\.(\s.*)?$/, "").slice(0, 200);
  }
  return "";
}
