import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { distrust } from "../lib/trust.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { nearest } from "../lib/nearest.ts";
import { isOwnName } from "../lib/text.ts";
import { lstatOf } from "../lib/read-file.ts";
import { listDirectory } from "../store/files.ts";
import { BUNDLED_JOBS } from "./bundled-jobs.ts";

/** A job's files; the hooks only from where the job itself was found. [compat] */
export interface Job {
  name: string;
  script: string;
  pre: string | undefined;
  post: string | undefined;
}

/** @throws 64 for a path or an odd name */
export function validateJobName(name: string): void {
  if (isOwnName(name)) return;
  throw new VmError("usage", `'${name}' cannot be a job's name`, {
    hint: "a job is named, not its path: NAME for NAME.job",
  });
}

const hasEntry = (path: string): boolean => lstatOf(path) !== undefined;

/** Where jobs are. */
export interface JobPlaces {
  hostdir: string;
  profiles: string;
  libexec: string;
}

/** One of the jobs that can be named. */
export interface ListedJob {
  name: string;
  /** Where it is found. */
  place: "this VM's own" | "yours, for all VMs" | "bundled";
  /** Its script; undefined where that comes with the program and is not unpacked. */
  script: string | undefined;
}

const sharedJobs = (profiles: string): string => join(profiles, "scripts/jobs");

function jobsIn(directory: string, place: ListedJob["place"]): ListedJob[] {
  return listDirectory(directory)
    .toSorted()
    .filter((file) => file.endsWith(".job") && isOwnName(file.slice(0, -".job".length)))
    .map((file) => ({ name: file.slice(0, -".job".length), place, script: join(directory, file) }));
}

/** The jobs that `findJob` finds, in the order in which they are looked for. Nothing of them is run or checked. */
export function listJobs({ hostdir, profiles, libexec }: JobPlaces): ListedJob[] {
  const all = [
    ...jobsIn(hostdir, "this VM's own"),
    ...jobsIn(sharedJobs(profiles), "yours, for all VMs").filter(({ name }) => !BUNDLED_JOBS.includes(name)),
    ...jobsIn(join(libexec, "jobs"), "bundled"),
    ...BUNDLED_JOBS.map((name) => ({ name, place: "bundled" as const, script: undefined })),
  ];
  const first = new Map<string, ListedJob>();
  for (const job of all) if (!first.has(job.name)) first.set(job.name, job);
  return [...first.values()];
}

/**
 * Finds `NAME.job`: in HOSTDIR, among the user's own jobs, then among ours. Old copies of ours are passed over.
 * @throws 66 when there is none, 78 when others than the caller may write its files
 */
export function findJob(name: string, places: JobPlaces): Job {
  const shared = sharedJobs(places.profiles);
  const bundled = join(places.libexec, "jobs");
  const file = `${name}.job`;
  const passOver = BUNDLED_JOBS.includes(name);
  const directory = [places.hostdir, ...(passOver ? [] : [shared]), bundled].find((place) =>
    hasEntry(join(place, file)),
  );
  if (passOver && directory === bundled && hasEntry(join(shared, file)))
    log.info(`${join(shared, file)} is of the earlier program and is passed over; this one's own is used`);
  if (directory === undefined) {
    const similar = nearest(
      name.replace(/\.(job|pre|post)$/, ""),
      listJobs(places).map((job) => job.name),
    );
    const meant = similar === undefined ? "" : `did you mean: ${commandLine("job", similar)}\n`;
    throw new VmError("noInput", `no such job: ${name}`, {
      hint: `${meant}looked for ${file} in ${[places.hostdir, shared, bundled].join(", ")}\nall jobs: ${commandLine("job", "--list")}`,
    });
  }
  const hook = (kind: string): string | undefined => {
    const path = join(directory, `${name}.${kind}`);
    return hasEntry(path) ? path : undefined;
  };
  const job = { name, script: join(directory, file), pre: hook("pre"), post: hook("post") };
  // Its hooks run with the caller's rights, the job itself with the power over the guest's disks.
  for (const path of [job.script, job.pre, job.post]) if (path !== undefined) refuseForeignJob(path);
  return job;
}

function refuseForeignJob(path: string): void {
  const reason = distrust(path);
  if (reason)
    throw new VmError("config", `${path} is not run: ${reason}`, {
      hint: "make the file and its directory yours alone: chmod go-w",
    });
}
