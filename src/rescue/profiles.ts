import { join } from "node:path";
import { parseSetting } from "../config/schema.ts";
import { listDirectory, lstatOf, readSmall } from "../store/files.ts";
import { RESCUE } from "../store/layout.ts";

/** Names of the rescue profiles among what is in PROFILES, sorted. VMs have a guest.env, too. */
export function listProfiles(profiles: string): string[] {
  return listDirectory(profiles)
    .filter((name) => {
      const file = join(profiles, name, RESCUE.guestEnv);
      const text = lstatOf(file)?.isFile() ? (readSmall(file) ?? "") : "";
      return /^\s*RESCUE_(ISO|KERNEL)=/m.test(text) && "value" in parseSetting("RESCUE", name);
    })
    .toSorted();
}
