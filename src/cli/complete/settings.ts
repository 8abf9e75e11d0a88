/** Candidates that need the VM's settings. */
import { join } from "node:path";
import { listJobs } from "../../rescue/find-job.ts";
import { listProfiles } from "../../rescue/profiles.ts";
import { listLabels } from "../../vm/all.ts";
import type { ProcessFacts } from "../../vm/context.ts";
import { numberImages } from "../../vm/disks.ts";
import { findHostdir, openVm } from "../../vm/find.ts";
import type { Candidate } from "./values.ts";

export async function jobCandidates(facts: ProcessFacts): Promise<Candidate[]> {
  return listJobs({
    hostdir: findHostdir(facts),
    profiles: await profilesOf(facts),
    libexec: facts.libexec,
  }).map(({ name, place }) => ({ text: name, help: place }));
}

export const profileCandidates = async (facts: ProcessFacts): Promise<Candidate[]> =>
  listProfiles(await profilesOf(facts)).map((text) => ({ text }));

/** PROFILES from the settings, if these can be read without bash. */
async function profilesOf(facts: ProcessFacts): Promise<string> {
  try {
    return (await openVm(facts, false)).settings.PROFILES;
  } catch {
    return join(facts.home, facts.prog);
  }
}

/** Numbers of the VM's disks. */
export async function diskCandidates(facts: ProcessFacts): Promise<Candidate[]> {
  const { settings } = await openVm(facts, false);
  const numbers = numberImages(settings);
  return settings.IMAGES.map(({ path }, index) => ({ text: String(numbers[index]), help: path }));
}

/** Labels of VMs. @param at what stands in front of each */
export const labelCandidates = async (facts: ProcessFacts, at: string): Promise<Candidate[]> =>
  (await listLabels(facts, await profilesOf(facts))).map((label) => ({
    text: at + label,
    help: "VMs with this label",
  }));
