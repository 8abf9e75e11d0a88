import { findManager } from "../../vm/confine.ts";
import { findKernelPlaces, findMissingControllers, type KernelPlaces } from "../../process/cgroup.ts";
import type { Check } from "./check.ts";

/** Everything that a VM can be limited in. */
const ALL = { cpuPercent: 100, memoryBytes: 1, ioWeight: 100 };

/** What CPU_QUOTA, MEMORY_MAX, IO_WEIGHT and SLICE need. */
export function checkLimits(places: KernelPlaces = findKernelPlaces(), manager = findManager()): Check {
  const common = { name: "limits", needed: false, use: "CPU_QUOTA, MEMORY_MAX, IO_WEIGHT" };
  const missing = findMissingControllers(ALL, places);
  const who = manager
    ? `scopes of systemd (${manager.bus === "--user" ? "the user's" : "the system's"} manager)`
    : "control groups of its own, without systemd";
  if (places.groups === undefined) return { ...common, state: "limited", detail: "cgroup v2 is not mounted" };
  return missing.length > 0
    ? { ...common, state: "limited", detail: `${who}; cgroup v2 has no controller ${missing.join(", ")}` }
    : { ...common, state: "ok", detail: who };
}
