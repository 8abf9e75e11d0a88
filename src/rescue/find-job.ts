import { statSync } from "node:fs";
import { join } from "node:path";
import { commandLine } from "../lib/command-line.ts";
import { distrust } from "../lib/trust.ts";
import { VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { nearest } from "../lib/nearest.ts";
import { isOwnName } from "../lib/text.ts";
import { listDirectory } from "../store/files.ts";
import { fileKindOf, lstatOf } from "../lib/read-file.ts";
import { BUNDLED_JOBS, EARLIER_JOBS } from "./bundled-jobs.ts";

/** Files of a job; hooks only from the directory of the job itself. [compat] */
export interface Job {
  name: string;
  script: string;
  pre: string | undefined;
  post: string | undefined;
}

/** @throws 64 for a path or an invalid name */
export function validateJobName(name: string): void {
  if (isOwnName(name)) return;
  throw new VmError("usage", `'${name}' cannot be a job's name`, {
    hint: "give the name, not the path: NAME for NAME.job",
  });
}

const hasEntry = (path: string): boolean => lstatOf(path) !== undefined;

/** Directories of jobs. */
export interface JobPlaces {
  hostdir: string;
  profiles: string;
  libexec: string;
}

/** One of the available jobs. */
export interface ListedJob {
  name: string;
  /** Where it comes from. */
  place: "this VM's own" | "yours, for all VMs" | "bundled";
  /** Its script; undefined if embedded in the program and not unpacked. */
  script: string | undefined;
}

const sharedJobs = (profiles: string): string => join(profiles, "scripts/jobs");

function jobsIn(directory: string, place: ListedJob["place"]): ListedJob[] {
  return listDirectory(directory)
    .toSorted()
    .filter((file) => file.endsWith(".job") && isOwnName(file.slice(0, -".job".length)))
    .map((file) => ({ name: file.slice(0, -".job".length), place, script: join(directory, file) }));
}

/** The jobs that `findJob` finds, in the order of the search. They are neither run nor checked. */
export function listJobs({ hostdir, profiles, libexec }: JobPlaces): ListedJob[] {
  const all = [
    ...jobsIn(hostdir, "this VM's own"),
    ...jobsIn(sharedJobs(profiles), "yours, for all VMs").filter(({ name }) => !EARLIER_JOBS.includes(name)),
    ...jobsIn(join(libexec, "jobs"), "bundled"),
    ...BUNDLED_JOBS.map((name) => ({ name, place: "bundled" as const, script: undefined })),
  ];
  const first = new Map<string, ListedJob>();
  for (const job of all) if (!first.has(job.name)) first.set(job.name, job);
  return [...first.values()];
}

/**
 * Finds `NAME.job`: in HOSTDIR, among the user's jobs, then among the bundled ones. Old copies of bundled jobs are
 * ignored.
 * @throws 66 if there is none, 78 if another user can write to its files
 */
export function findJob(name: string, places: JobPlaces): Job {
  const shared = sharedJobs(places.profiles);
  const bundled = join(places.libexec, "jobs");
  const file = `${name}.job`;
  const passOver = EARLIER_JOBS.includes(name);
  const directory = [places.hostdir, ...(passOver ? [] : [shared]), bundled].find((place) =>
    hasEntry(join(place, file)),
  );
  if (passOver && directory === bundled && hasEntry(join(shared, file)))
    log.info(`${join(shared, file)} is a copy from the earlier program: ignoring it, using the bundled job`);
  if (directory === undefined) {
    const similar = nearest(
      name.replace(/\.(job|pre|post)$/, ""),
      listJobs(places).map((job) => job.name),
    );
    const meant = similar === undefined ? "" : `did you mean: ${commandLine("job", similar)}\n`;
    throw new VmError("noInput", `no such job: ${name}`, {
      hint: `${meant}put ${file} in one of ${[places.hostdir, shared, bundled].join(", ")}\nlist all jobs: ${commandLine("job", "--list")}`,
    });
  }
  const hook = (kind: string): string | undefined => {
    const path = join(directory, `${name}.${kind}`);
    return hasEntry(path) ? path : undefined;
  };
  const job = { name, script: join(directory, file), pre: hook("pre"), post: hook("post") };
  // Its hooks run with the caller's rights, and the job can change the guest's disks.
  for (const path of [job.script, job.pre, job.post]) if (path !== undefined) refuseForeignScript(path);
  return job;
}

/** @throws 78 if another user can write to a script that is about to run */
export function refuseForeignScript(path: string): void {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (!stats?.isFile())
    throw new VmError(
      "io",
      `cannot run ${path}: it is ${stats ? fileKindOf(stats) : "a symlink to nothing"}`,
    );
  const reason = distrust(path);
  if (reason)
    throw new VmError("config", `refusing to run ${path}: ${reason}`, {
      hint: "make the file and its directory yours alone: chmod go-w",
    });
}
