/** Control groups, version 2 (Documentation/admin-guide/cgroup-v2.rst of Linux). */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { hasErrno, reasonOf } from "../lib/errors.ts";

/** Limits of a group; absent: none. */
export interface GroupLimits {
  /** Of one processor. */
  cpuPercent?: number | undefined;
  memoryBytes?: number | undefined;
  /** From 1 to 10000; 100 is the default. */
  ioWeight?: number | undefined;
}

/** Where the kernel shows processes and their groups. */
export interface KernelPlaces {
  proc: string;
  /** Mount point of cgroup2; undefined: not mounted. */
  groups: string | undefined;
}

/** Also of a host with both versions, whose controllers may belong to version 1. */
export function findKernelPlaces(): KernelPlaces {
  const points = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => / - cgroup2 /.test(line))
    .map((line) => line.split(" ")[4]!);
  return { proc: "/proc", groups: points[0] };
}

/** The group of a process, relative to the mount point; undefined if it has exited. @param pid or `self` */
export function groupOf(pid: number | "self", { proc }: KernelPlaces): string | undefined {
  try {
    return /^0::(\/.*)$/m.exec(readFileSync(join(proc, String(pid), "cgroup"), "utf8"))?.[1];
  } catch {
    return undefined;
  }
}

/** Microseconds, the period of a quota. */
const PERIOD = 100_000;

/** What limits are written to; `io.bfq.weight`: with BFQ as the disks' scheduler (Documentation/block/bfq-iosched.rst). */
const FILES = { cpu: "cpu.max", memory: "memory.max", io: ["io.weight", "io.bfq.weight"] } as const;

const readGroupFile = (group: string, name: string): string | undefined => {
  try {
    return readFileSync(join(group, name), "utf8").trim();
  } catch {
    return undefined;
  }
};

/** The limits that a group has itself. A group without a controller has none of it. */
export function readGroupLimits(group: string): GroupLimits {
  const [quota, period] = (readGroupFile(group, FILES.cpu) ?? "max").split(" ").map(Number);
  const bytes = Number(readGroupFile(group, FILES.memory));
  const weights = FILES.io.map((name) => readGroupFile(group, name)).find((text) => text !== undefined);
  const weight = Number(/^(?:default )?(\d+)/.exec(weights ?? "")?.[1]);
  return {
    ...(quota! > 0 && { cpuPercent: Math.round((quota! / (period ?? PERIOD)) * 100) }),
    ...(bytes > 0 && { memoryBytes: bytes }),
    ...(weight > 0 && { ioWeight: weight }),
  };
}

/** Controllers that the limits need. */
const controllersFor = ({ cpuPercent, memoryBytes, ioWeight }: GroupLimits): string[] => [
  ...(cpuPercent === undefined ? [] : ["cpu"]),
  ...(memoryBytes === undefined ? [] : ["memory"]),
  ...(ioWeight === undefined ? [] : ["io"]),
];

/** Controllers that the limits need, and this host's version 2 does not have. */
export function findMissingControllers(limits: GroupLimits, { groups }: KernelPlaces): string[] {
  const has = groups === undefined ? [] : (readGroupFile(groups, "cgroup.controllers") ?? "").split(" ");
  return controllersFor(limits).filter((name) => !has.includes(name));
}

/**
 * Makes a group with limits, as near to this process's own as its rights and the kernel's rules allow (a group with
 * processes has no controllers for those below), and moves a process there.
 * @param slice a group above it, made if missing; empty: none
 * @returns the group, relative to the mount point
 * @throws Error with the reason
 */
export function confineInGroup(
  pid: number,
  name: string,
  slice: string,
  limits: GroupLimits,
  places: KernelPlaces,
): string {
  const own = groupOf("self", places);
  if (places.groups === undefined || own === undefined) throw new Error("cgroup v2 is not mounted");
  const missing = findMissingControllers(limits, places);
  if (missing.length > 0) throw new Error(`cgroup v2 has no controller ${missing.join(", ")} here`);
  let reason: unknown;
  for (let above = own; ; above = dirname(above)) {
    try {
      return confineBelow(above, { pid, name, slice, limits, groups: places.groups });
    } catch (error) {
      reason = error;
    }
    if (above === dirname(above)) throw reason;
  }
}

interface NewGroup {
  pid: number;
  name: string;
  slice: string;
  limits: GroupLimits;
  groups: string;
}

function confineBelow(above: string, { pid, name, slice, limits, groups }: NewGroup): string {
  const controllers = controllersFor(limits);
  const parent = join(groups, above, slice);
  if (slice !== "") {
    mkdirSync(parent, { recursive: true });
    enable(join(groups, above), controllers);
  }
  enable(parent, controllers);
  removeEnded(parent);
  const group = join(parent, name);
  mkdirSync(group);
  try {
    const { cpuPercent, memoryBytes, ioWeight } = limits;
    if (cpuPercent !== undefined)
      writeFileSync(join(group, FILES.cpu), `${Math.round((cpuPercent * PERIOD) / 100)} ${PERIOD}`);
    if (memoryBytes !== undefined) writeFileSync(join(group, FILES.memory), String(memoryBytes));
    if (ioWeight !== undefined) {
      const file = FILES.io.find((one) => existsSync(join(group, one))) ?? FILES.io[0];
      writeFileSync(join(group, file), `default ${ioWeight}`);
    }
    writeFileSync(join(group, "cgroup.procs"), String(pid));
  } catch (error) {
    removeGroup(group);
    throw error;
  }
  return join(above, slice, name);
}

/** Lets groups below have these controllers. */
function enable(group: string, controllers: readonly string[]): void {
  const enabled = (readGroupFile(group, "cgroup.subtree_control") ?? "").split(" ");
  const missing = controllers.filter((one) => !enabled.includes(one));
  if (missing.length === 0) return;
  try {
    writeFileSync(join(group, "cgroup.subtree_control"), missing.map((one) => `+${one}`).join(" "));
  } catch (error) {
    const why = hasErrno(error, "EBUSY") ? "it has processes of its own" : reasonOf(error);
    throw new Error(`cannot pass controllers on in ${group}: ${why}`, { cause: error });
  }
}

/** Removes a group without processes. */
function removeGroup(group: string): void {
  try {
    rmdirSync(group);
  } catch {
    // It has processes, or is gone.
  }
}

/** Removes groups whose qemu has ended, which nothing else does: `vm-NAME-PID`. */
function removeEnded(parent: string): void {
  for (const name of readdirSync(parent)) {
    const pid = /^vm-.*-(\d+)$/.exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) removeGroup(join(parent, name));
  }
}
