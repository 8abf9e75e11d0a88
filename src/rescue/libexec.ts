import { dirname, join } from "node:path";
import { isOurDirectory } from "../lib/trust.ts";
import { lstatOf, realPath } from "../lib/read-file.ts";
import { BUNDLED_JOBS } from "./bundled-jobs.ts";
// A macro: computed by the build, so that a start does without the files.
import { dataName } from "./libexec-files.ts" with { type: "macro" };

/** The directory below the user's cache that the program unpacks its data files into. */
export const DATA_NAME: string = dataName();

/** Directory of data files installed by a package, below its prefix. */
export const SYSTEM_LIBEXEC = "/usr/libexec/vm";

/**
 * Finds data files that were installed with the program, which a distribution may have changed: those of the
 * same prefix (`/opt/x/libexec/vm` for `/opt/x/bin/vm`), then the system's. Where others could change them
 * they are ignored, as the embedded ones are always available.
 * @param program the program's own path
 */
export function findInstalledLibexec(program: string, system = SYSTEM_LIBEXEC): string | undefined {
  return [join(dirname(program), "../libexec/vm"), system]
    .map(realPath)
    .find((place) => place !== undefined && isOurDirectory(join(place, "jobs")) && isComplete(place));
}

/** Those of an older version may lack a job. */
const isComplete = (place: string): boolean =>
  BUNDLED_JOBS.every((name) => lstatOf(join(place, "jobs", `${name}.job`))?.isFile());
