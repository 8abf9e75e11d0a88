/** Limits of a VM's qemu: in a scope of systemd's, or in a control group of its own. Loaded only if some are set. */
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import type { Settings } from "../config/schema.ts";
import { reasonOf } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { escapePath } from "../lib/systemd.ts";
import { quoteLine } from "../lib/text.ts";
import {
  confineInGroup,
  findKernelPlaces,
  findMissingControllers,
  groupOf,
  readGroupLimits,
  type GroupLimits,
  type KernelPlaces,
} from "../process/cgroup.ts";
import { exec, findProgram, lastLineOf } from "../process/exec.ts";
import type { RunRecord } from "../store/mark-types.ts";

type LimitSettings = Pick<Settings, "CPU_QUOTA" | "MEMORY_MAX" | "IO_WEIGHT" | "SLICE">;

const MIB = 2 ** 20;

const limitsOf = ({ CPU_QUOTA, MEMORY_MAX, IO_WEIGHT }: LimitSettings): GroupLimits => ({
  cpuPercent: CPU_QUOTA,
  memoryBytes: MEMORY_MAX === undefined ? undefined : MEMORY_MAX * MIB,
  ioWeight: IO_WEIGHT,
});

/** The service manager that this process may ask for scopes. */
export interface ServiceManager {
  /** Words of busctl. */
  bus: "--system" | "--user";
}

/** systemd's manager of the system for root, else of the user; undefined if there is none (sd_booted(3)). */
export function findManager(
  env: Record<string, string | undefined> = process.env,
): ServiceManager | undefined {
  if (!existsSync("/run/systemd/system") || findProgram("busctl") === undefined) return undefined;
  const uid = process.getuid!();
  if (uid === 0 && existsSync("/run/dbus/system_bus_socket")) return { bus: "--system" };
  const runtime = env.XDG_RUNTIME_DIR ?? `/run/user/${uid}`;
  return existsSync(join(runtime, "bus")) ? { bus: "--user" } : undefined;
}

/**
 * Sets the limits of a qemu that has just been started. Never throws: without them the VM runs nevertheless, with a
 * warning.
 * @returns what to record of it
 */
export async function confineQemu(
  pid: number,
  vmName: string,
  settings: LimitSettings,
  manager = findManager(),
  places: KernelPlaces = findKernelPlaces(),
): Promise<NonNullable<RunRecord["limits"]>> {
  const name = `vm-${escapePath(vmName).slice(0, 150)}-${pid}`;
  try {
    const group = manager
      ? await confineByManager(pid, name, vmName, settings, manager, places)
      : confineInGroup(pid, name, settings.SLICE, limitsOf(settings), places);
    return { group };
  } catch (error) {
    const problem = quoteLine(reasonOf(error));
    log.warn(`the VM runs without its limits (${namesOf(settings).join(", ")}): ${problem}`);
    return { problem };
  }
}

/** A property of a unit, as busctl(1) takes it: name, signature, value. */
type Property = readonly [name: string, signature: string, ...value: (string | number)[]];

/** org.freedesktop.systemd1(5) */
const propertiesOf = ({ cpuPercent, memoryBytes, ioWeight }: GroupLimits): Property[] => [
  ...(cpuPercent === undefined ? [] : [["CPUQuotaPerSecUSec", "t", cpuPercent * 10_000] as const]),
  ...(memoryBytes === undefined ? [] : [["MemoryMax", "t", memoryBytes] as const]),
  ...(ioWeight === undefined ? [] : [["IOWeight", "t", ioWeight] as const]),
];

const listWords = (properties: readonly Property[]): string[] => [
  String(properties.length),
  ...properties.flat().map(String),
];

/** How long systemd may take. */
const MANAGER_MS = 10_000;
const POLL_MS = 10;

/**
 * A VM that its own unit has started stays in it, as the unit follows its qemu: the limits are then the unit's.
 * @returns the group that qemu is in
 */
async function confineByManager(
  pid: number,
  name: string,
  vmName: string,
  settings: LimitSettings,
  { bus }: ServiceManager,
  places: KernelPlaces,
): Promise<string> {
  const limits = propertiesOf(limitsOf(settings));
  const unit = basename(groupOf(pid, places) ?? "");
  if (/^vm@.*\.service$/.test(unit)) {
    await call(bus, "SetUnitProperties", "sba(sv)", unit, "true", ...listWords(limits));
    if (settings.SLICE !== "") throw new Error(`SLICE is that of ${unit}: set Slice= there`);
    return groupOf(pid, places) ?? "";
  }
  const scope = `${name}.scope`;
  const properties: Property[] = [
    ["Description", "s", `virtual machine ${quoteLine(vmName)}`],
    ["PIDs", "au", 1, pid],
    // Nothing remains of a qemu that was killed.
    ["CollectMode", "s", "inactive-or-failed"],
    ...(settings.SLICE === "" ? [] : [["Slice", "s", settings.SLICE] as const]),
    ...limits,
  ];
  await call(bus, "StartTransientUnit", "ssa(sv)a(sa(sv))", scope, "fail", ...listWords(properties), "0");
  // The reply comes before the process is in the scope.
  for (let waited = 0; waited < MANAGER_MS; waited += POLL_MS) {
    const group = groupOf(pid, places);
    if (group === undefined) throw new Error("qemu has exited");
    if (basename(group) === scope) return group;
    await Bun.sleep(POLL_MS);
  }
  throw new Error(`systemd has not moved qemu into ${scope}`);
}

async function call(bus: ServiceManager["bus"], method: string, ...words: string[]): Promise<void> {
  const manager = [
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
  ];
  const timeout = `--timeout=${MANAGER_MS / 1000}`;
  const argv = ["busctl", bus, timeout, "call", ...manager, method, ...words];
  const result = await exec(argv, { anyStatus: true, keepOnInterrupt: true });
  if (result.status !== 0) throw new Error(`systemd: ${lastLineOf(result)}`);
}

/** Limits of a running VM, as the kernel has them. */
export interface LimitStatus {
  /** The control group of qemu; null: none of its own. */
  group: string | null;
  cpuPercent: number | null;
  memoryBytes: number | null;
  ioWeight: number | null;
  /** Why some are not in force. */
  problem?: string;
}

/** The limits in force; undefined if none are wanted. @param pid of qemu; undefined: not known */
export function readLimitStatus(
  settings: LimitSettings,
  run: RunRecord["limits"],
  pid: number | undefined,
  places: KernelPlaces = findKernelPlaces(),
): LimitStatus | undefined {
  const wanted = limitsOf(settings);
  if (settings.SLICE === "" && Object.values(wanted).every((value) => value === undefined)) return undefined;
  const group = run?.group === undefined || pid === undefined ? undefined : groupOf(pid, places);
  const has: GroupLimits =
    group === undefined || places.groups === undefined ? {} : readGroupLimits(join(places.groups, group));
  const lacking = (["cpuPercent", "memoryBytes", "ioWeight"] as const).filter(
    (name) => wanted[name] !== undefined && !isLike(name, has[name], wanted[name]),
  );
  const version1 = findMissingControllers(wanted, places);
  const problem =
    (run?.problem === undefined
      ? undefined
      : `not in force: ${namesOf(settings).join(", ")} (${run.problem})`) ??
    (group !== undefined && version1.length > 0
      ? `cannot be checked: cgroup v2 has no controller ${version1.join(", ")}`
      : undefined) ??
    (lacking.length === 0
      ? undefined
      : `not in force: ${lacking.map((name) => SETTING_OF[name]).join(", ")}`);
  return {
    group: group ?? null,
    cpuPercent: has.cpuPercent ?? null,
    memoryBytes: has.memoryBytes ?? null,
    ioWeight: has.ioWeight ?? null,
    ...(problem !== undefined && { problem }),
  };
}

/** Those that are set. */
const namesOf = (settings: LimitSettings): string[] =>
  (["CPU_QUOTA", "MEMORY_MAX", "IO_WEIGHT", "SLICE"] as const).filter(
    (name) => settings[name] !== undefined && settings[name] !== "",
  );

/** The kernel rounds memory to pages. */
const MAX_PAGE_BYTES = 65_536;
const isLike = (name: keyof GroupLimits, has: number | undefined, wanted: number): boolean =>
  has !== undefined && Math.abs(has - wanted) <= (name === "memoryBytes" ? MAX_PAGE_BYTES : 0);

const SETTING_OF = { cpuPercent: "CPU_QUOTA", memoryBytes: "MEMORY_MAX", ioWeight: "IO_WEIGHT" } as const;
