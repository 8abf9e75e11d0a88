import { join } from "node:path";
import { distrust } from "../lib/trust.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { lstatOf } from "../store/files.ts";
import { BUNDLED_JOBS } from "./assets.ts";

/** A job's files; the hooks only from where the job itself was found. [compat] */
export interface Job {
  name: string;
  script: string;
  pre: string | undefined;
  post: string | undefined;
}

/** @throws 64 for a path or an odd name */
export function validateJobName(name: string): void {
  if (/^[^/.\-\p{Cc}][^/\p{Cc}]*$/u.test(name) && Buffer.byteLength(name) <= 200) return;
  throw new VmError("usage", `'${name}' cannot be a job's name`, {
    hint: "a job is named, not its path: NAME for NAME.job",
  });
}

const isThere = (path: string): boolean => lstatOf(path) !== undefined;

/**
 * Finds `NAME.job`: in HOSTDIR, among the user's own jobs, then among ours. Old copies of ours are passed over.
 * @throws 66 when there is none, 78 when others than the caller may write its files
 */
export function findJob(name: string, places: { hostdir: string; profiles: string; libexec: string }): Job {
  const shared = join(places.profiles, "scripts/jobs");
  const bundled = join(places.libexec, "jobs");
  const file = `${name}.job`;
  const passOver = BUNDLED_JOBS.includes(name);
  const directory = [places.hostdir, ...(passOver ? [] : [shared]), bundled].find((place) =>
    isThere(join(place, file)),
  );
  if (passOver && directory === bundled && isThere(join(shared, file)))
    log.info(`${join(shared, file)} is of the earlier program and is passed over; this one's own is used`);
  if (directory === undefined)
    throw new VmError("noInput", `no such job: ${name}`, {
      hint: `looked for ${file} in ${[places.hostdir, shared, bundled].join(", ")}`,
    });
  const hook = (kind: string): string | undefined => {
    const path = join(directory, `${name}.${kind}`);
    return isThere(path) ? path : undefined;
  };
  const job = { name, script: join(directory, file), pre: hook("pre"), post: hook("post") };
  // Its hooks run with the caller's rights, the job itself with the power over the guest's disks.
  for (const path of [job.script, job.pre, job.post]) if (path !== undefined) refuseForeign(path);
  return job;
}

function refuseForeign(path: string): void {
  const reason = distrust(path);
  if (reason)
    throw new VmError("config", `${path} is not run: ${reason}`, {
      hint: "make the file and its directory yours alone: chmod go-w",
    });
}
