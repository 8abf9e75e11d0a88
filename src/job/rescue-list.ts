import { statSync } from "node:fs";
import { join } from "node:path";
import { programLine } from "../lib/command-line.ts";
import { reasonOf, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import { formatTable } from "../lib/table.ts";
import type { Arch } from "../machine/types.ts";
import { archesOfKernel } from "../rescue/kernel-arch.ts";
import { listProfiles } from "../rescue/profiles.ts";
import { listDirectory } from "../store/files.ts";
import type { Context } from "../vm/context.ts";
import { Media } from "../vm/media.ts";
import { openOwnVm, type Vm } from "../vm/find.ts";
import { findRescue } from "./rescue-machine.ts";

/** Size of a profile's files, in bytes. */
export const measureRescue = (directory: string): number =>
  listDirectory(directory).reduce((sum, name) => sum + sizeAt(join(directory, name)), 0);

const isSystemError = (error: unknown): boolean => error instanceof Error && "errno" in error;

/** Follows symlinks (a kernel may be one); 0 for a dangling one. */
function sizeAt(path: string): number {
  try {
    return statSync(path).size;
  } catch {
    return 0;
  }
}

/** An existing rescue profile. */
export interface FoundRescue {
  name: string;
  kind: "CD" | "own" | "-";
  /** Guest architectures of its kernel; empty if unknown. */
  arches: readonly Arch[];
  /** Why it cannot be used. */
  problem: string | undefined;
  bytes: number;
}

const warnUnreadable = (directory: string, error: unknown): void =>
  log.warn(`cannot open ${directory}: ${reasonOf(error)}`);

export async function findRescues(context: Context, vm: Vm): Promise<FoundRescue[]> {
  const { PROFILES } = vm.settings;
  const found: FoundRescue[] = [];
  for (const name of listProfiles(PROFILES, warnUnreadable))
    found.push({
      name,
      ...(await inspectRescue(context, vm, name)),
      bytes: measureRescue(join(PROFILES, name)),
    });
  return found;
}

/** Prints the rescue profiles, with the reasons why some cannot be used. */
export async function listRescues(context: Context): Promise<void> {
  const vm = await openOwnVm(context);
  const found = await findRescues(context, vm);
  if (found.length === 0)
    return log.info(`no rescue in ${vm.settings.PROFILES}; build one: ${programLine("rescue", "build")}`);
  const rows = found.map(({ name, kind, arches, problem, bytes }) => [
    name,
    kind,
    arches.join(" ") || "-",
    problem === undefined ? "usable" : `not usable: ${problem}`,
    formatSize(bytes),
  ]);
  context.print(formatTable([["NAME", "KIND", "GUESTS", "STATE", "SIZE"], ...rows]));
}

async function inspectRescue(
  context: Context,
  vm: Vm,
  name: string,
): Promise<Pick<FoundRescue, "kind" | "arches" | "problem">> {
  try {
    const named: Vm = { ...vm, settings: { ...vm.settings, RESCUE: name } };
    const { system } = await findRescue(context, named, new Media(context, named));
    if (system.kind === "cd") return { kind: "CD", arches: [], problem: undefined };
    return { kind: "own", arches: archesOfKernel(system.kernel), problem: undefined };
  } catch (error) {
    if (!(error instanceof VmError) && !isSystemError(error)) throw error;
    return { kind: "-", arches: [], problem: reasonOf(error).replaceAll(/\s+/g, " ") };
  }
}
