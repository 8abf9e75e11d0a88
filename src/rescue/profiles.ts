import { join } from "node:path";
import { parseSetting } from "../config/schema.ts";
import { lstatOf, readSmall } from "../lib/read-file.ts";
import { listDirectory } from "../store/files.ts";
import { LOST_FOUND, RESCUE } from "../store/layout.ts";

/**
 * Names of the rescue profiles among what is in PROFILES, sorted. VMs have a guest.env, too.
 * @param onProblem receives errors of directories that cannot be read
 */
export function listProfiles(
  profiles: string,
  onProblem: (directory: string, error: unknown) => void = () => {},
): string[] {
  return listDirectory(profiles)
    .filter((name) => {
      try {
        const file = join(profiles, name, RESCUE.guestEnv);
        const text = lstatOf(file)?.isFile() ? (readSmall(file) ?? "") : "";
        return /^\s*RESCUE_(ISO|KERNEL)=/m.test(text) && "value" in parseSetting("RESCUE", name);
      } catch (error) {
        if (name !== LOST_FOUND) onProblem(join(profiles, name), error);
        return false;
      }
    })
    .toSorted();
}
