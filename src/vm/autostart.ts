/**
 * Autostart: what is recorded of it. With systemd each VM has a unit `PROG@INSTANCE.service` of its own, which holds its plan in a
 * section that systemd ignores (systemd.unit(5), "X-"); it is on if the unit is enabled. With cron all plans of a user are
 * in one file.
 */
import { isAbsolute, join, resolve } from "node:path";
import { reasonOf, VmError } from "../lib/errors.ts";
import { lstatOf, readSmall } from "../lib/read-file.ts";
import { escapePath } from "../lib/systemd.ts";
import { sha256 } from "../lib/crypto.ts";
import { isPlainName } from "../lib/text.ts";
import type { ProcessFacts } from "./context.ts";
import { unitDirectory } from "./systemd.ts";

export const MANAGERS = ["system", "user", "cron"] as const;
/** What starts a VM: one of systemd's managers, or cron. */
export type Manager = (typeof MANAGERS)[number];

/** When a VM counts as started besides: when qemu runs. */
export const READY_EVENTS = ["ssh", "agent"] as const;

/** How a VM is started with the host. */
export interface AutostartPlan {
  /** HOSTDIR, symlinks resolved. */
  directory: string;
  /** Name of the VM, for the description. */
  guest: string;
  /** VMs with a lower one are started before, and shut down after this one. */
  order: number;
  delaySeconds: number;
  /** Start it again after a crash. */
  restart: boolean;
  wait: (typeof READY_EVENTS)[number] | null;
  /** Time limit for the guest to power off. */
  stopSeconds: number;
  /** This program. */
  program: string;
  /** Environment of the program. */
  env: Record<string, string>;
  /** User of a unit of the system; absent for root. */
  uid?: number | undefined;
  /** Directory of the working files, whose filesystem must be mounted. */
  working: string;
}

/** Autostart of a VM that is on. */
export interface Autostart {
  manager: Manager;
  /** Absent with cron. */
  unit?: string;
  plan: AutostartPlan;
}

export const MAX_ORDER = 999;
export const MAX_SECONDS = 999_999;
/** Maximum length of a unit name (systemd.unit(5)). */
const MAX_NAME = 255;

/** `vm@srv-my\x20vm.service`; a hash if the path is too long for a name. */
export function autostartUnit(prog: string, directory: string): string {
  const name = `${prog}@${escapePath(directory)}.service`;
  return name.length <= MAX_NAME ? name : `${prog}@${sha256(directory).slice(0, 32)}.service`;
}

/** The target that starts the units, and its symlink to one of them (systemd.unit(5), "[Install]"). */
export const bootTarget = (system: boolean): string => (system ? "multi-user.target" : "default.target");
export const wantsLink = (directory: string, system: boolean, unit: string): string =>
  join(directory, `${bootTarget(system)}.wants`, unit);

/** File with the plans for cron, of this user. */
export const cronRecord = ({ env, home, prog }: Pick<ProcessFacts, "env" | "home" | "prog">): string => {
  const config = env.XDG_CONFIG_HOME;
  return join(config && isAbsolute(config) ? config : join(home, ".config"), `${prog}.autostart.json`);
};

/** Section and key of the plan in a unit. */
export const PLAN_SECTION = "X-Autostart";
const PLAN_LINE = new RegExp(String.raw`^\[${PLAN_SECTION}\]\nPlan=(\{.*\})$`, "m");

/** The plan in a unit; undefined if it is not one of this program's. */
export function readUnit(path: string): AutostartPlan | undefined {
  const json = PLAN_LINE.exec(readOrNothing(path) ?? "")?.[1];
  try {
    return json === undefined ? undefined : parsePlan(JSON.parse(json));
  } catch {
    return undefined;
  }
}

/** A unit or record that cannot be read is none: what needs it reports that. */
function readOrNothing(path: string): string | undefined {
  try {
    return readSmall(path);
  } catch {
    return undefined;
  }
}

/** The plans for cron. @throws 74 if the file is damaged */
export function readCronRecord(facts: Pick<ProcessFacts, "env" | "home" | "prog">): AutostartPlan[] {
  const path = cronRecord(facts);
  if (!lstatOf(path)) return [];
  let plans: (AutostartPlan | undefined)[];
  try {
    plans = (JSON.parse(readSmall(path) ?? "") as { vms: unknown[] }).vms.map(parsePlan);
  } catch (error) {
    throw new VmError("io", `cannot read ${path}: ${reasonOf(error)}`, {
      hint: "remove it, and turn autostart on again for each VM",
    });
  }
  return plans.filter((plan) => plan !== undefined);
}

const whole = (value: unknown, most: number): value is number =>
  typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= most;

const isCleanPath = (value: unknown): value is string =>
  typeof value === "string" && isAbsolute(value) && resolve(value) === value && !value.includes("\0");

/** Parses a plan; undefined if a field is not as this version writes it. */
export function parsePlan(value: unknown): AutostartPlan | undefined {
  const plan = (value ?? {}) as Partial<Record<keyof AutostartPlan, unknown>>;
  const { directory, working, program, order, delaySeconds, stopSeconds, uid, env = {} } = plan;
  const wait = READY_EVENTS.find((one) => one === plan.wait) ?? null;
  if (!isCleanPath(directory) || !isCleanPath(working) || !isCleanPath(program)) return undefined;
  if (!whole(order, MAX_ORDER) || !whole(delaySeconds, MAX_SECONDS) || !whole(stopSeconds, MAX_SECONDS))
    return undefined;
  if (uid !== undefined && !whole(uid, 2 ** 32 - 2)) return undefined;
  const entries = Object.entries(env as object);
  if (!entries.every(([name, text]) => isPlainName(name) && typeof text === "string")) return undefined;
  return {
    directory,
    guest: typeof plan.guest === "string" ? plan.guest : "",
    order,
    delaySeconds,
    restart: plan.restart === true,
    wait,
    stopSeconds,
    program,
    env: Object.fromEntries(entries) as Record<string, string>,
    ...(uid !== undefined && { uid: uid as number }),
    working,
  };
}

/** Autostart of the VM in a directory; undefined if it is off. */
export function findAutostart(facts: ProcessFacts, directory: string): Autostart | undefined {
  const unit = autostartUnit(facts.prog, directory);
  for (const manager of ["system", "user"] as const) {
    const place = unitDirectory(facts, manager === "system");
    if (!lstatOf(wantsLink(place, manager === "system", unit))) continue;
    const plan = readUnit(join(place, unit));
    if (plan?.directory === directory) return { manager, unit, plan };
  }
  try {
    const plan = readCronRecord(facts).find((one) => one.directory === directory);
    return plan && { manager: "cron", plan };
  } catch {
    // `autostart` reports it.
    return undefined;
  }
}
