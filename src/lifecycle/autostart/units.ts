/** The units of autostart in the directory of one of systemd's managers. */
import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { lstatOf, readSmall } from "../../lib/read-file.ts";
import { exec } from "../../process/exec.ts";
import { fileError, listDirectory, replaceFile } from "../../store/files.ts";
import { lockDirectory } from "../../store/lock.ts";
import { remove } from "../../store/remove.ts";
import { autostartUnit, readUnit, wantsLink, type AutostartPlan } from "../../vm/autostart.ts";
import type { ProcessFacts } from "../../vm/context.ts";
import { runSystemctl, systemctl, unitDirectory } from "../../vm/systemd.ts";
import { buildUnit } from "./unit.ts";

/** Start of an error message. */
const CANNOT_CHANGE = "cannot change autostart in systemd";
const LOCK_WAIT_MS = 10_000;

export interface InstalledUnit {
  name: string;
  plan: AutostartPlan;
}

/** The enabled units of this program, in their order. */
export function listUnits(facts: ProcessFacts, system: boolean): InstalledUnit[] {
  const directory = unitDirectory(facts, system);
  return listDirectory(directory)
    .filter((name) => name.startsWith(`${facts.prog}@`) && name.endsWith(".service"))
    .filter((name) => lstatOf(wantsLink(directory, system, name)))
    .flatMap((name) => {
      const plan = readUnit(join(directory, name));
      return plan && autostartUnit(facts.prog, plan.directory) === name ? [{ name, plan }] : [];
    })
    .toSorted((a, b) => a.plan.order - b.plan.order || (a.name < b.name ? -1 : 1));
}

/** Writes what a unit is to be, and has systemd read it, with those of VMs whose order it changes. */
export async function installUnit(facts: ProcessFacts, system: boolean, plan: AutostartPlan): Promise<void> {
  const directory = unitDirectory(facts, system);
  const name = autostartUnit(facts.prog, plan.directory);
  const isNew = !lstatOf(join(directory, name));
  try {
    mkdirSync(directory, { recursive: true, mode: 0o755 });
    using _lock = await lockUnits(directory);
    const others = listUnits(facts, system).filter((unit) => unit.name !== name);
    writeUnits(directory, system, [...others, { name, plan }]);
  } catch (error) {
    throw fileError("cannot write the unit", error);
  }
  try {
    await runSystemctl(CANNOT_CHANGE, system, "daemon-reload");
    await runSystemctl(CANNOT_CHANGE, system, "enable", name);
  } catch (error) {
    if (isNew) remove(join(directory, name));
    throw error;
  }
}

/** Disables a unit. It is removed, unless the VM runs under it: systemd still needs to know how to stop it. */
export async function removeUnit(
  facts: ProcessFacts,
  system: boolean,
  name: string,
): Promise<{ active: boolean }> {
  const directory = unitDirectory(facts, system);
  await runSystemctl(CANNOT_CHANGE, system, "disable", name);
  const { stdout } = await exec(systemctl(system, "is-active", name), { anyStatus: true });
  const active = /^(active|reloading|activating|deactivating)$/.test(stdout.trim());
  {
    using _lock = await lockUnits(directory);
    if (!active) remove(join(directory, name));
    writeUnits(directory, system, listUnits(facts, system));
  }
  await runSystemctl(CANNOT_CHANGE, system, "daemon-reload");
  return { active };
}

const lockUnits = (directory: string) =>
  lockDirectory(directory, {
    command: "change autostart",
    waitMs: LOCK_WAIT_MS,
    busy: `${directory} is locked by another process`,
  });

/** Those that differ from what they are to be. */
function writeUnits(directory: string, system: boolean, units: readonly InstalledUnit[]): void {
  for (const { name, plan } of units) {
    const after = units
      .filter((other) => other.plan.order < plan.order)
      .map((other) => other.name)
      .toSorted();
    const text = buildUnit({ plan, system, after });
    const path = join(directory, name);
    if (lstatOf(path)?.isFile() && readSmall(path) === text) continue;
    replaceFile(path, text);
    // systemd warns about units that are not world-readable.
    chmodSync(path, 0o644);
  }
}
