import { parseSetting, type RawSettings, type SettingName, type Settings } from "../config/schema.ts";
import { VmError } from "../lib/errors.ts";
import { ARCH } from "../machine/arch.ts";
import type { Arch, Machine } from "../machine/types.ts";
import { resolveAccel } from "../qemu/accel.ts";
import type { Capabilities } from "../qemu/capabilities.ts";
import { probeQemu } from "../qemu/probe.ts";
import { sumProcessor } from "../rescue/warm-state.ts";
import type { SavedMachine } from "../store/manifest.ts";
import type { Context } from "./context.ts";

type SavedHost = Pick<SavedMachine, "qemu" | "accel" | "processor">;

/**
 * Why the RAM of a machine cannot be resumed on this host; undefined if it can.
 * @param own accelerator that the machine would have
 * @param saved `saved`, or `suspended`
 */
export function findOtherHost(
  { qemu, accel, processor }: SavedHost,
  own: Machine["accel"],
  { version }: Pick<Capabilities, "version">,
  saved = "saved",
): string | undefined {
  if (version.split(" ")[0] !== qemu) return `it was ${saved} by qemu ${qemu}, and this is ${version}`;
  if (own !== accel) return `it was ${saved} with ${accel}, and would run with ${own}`;
  return accel === "kvm" && processor !== sumProcessor() ? `it was ${saved} on another processor` : undefined;
}

/**
 * The same before anything of the machine is resolved. Without qemu it is not known: `run` reports that.
 * @param raw settings of the machine
 */
export async function findOtherHostOf(
  { cacheDirectory, hostArch }: Context,
  raw: RawSettings,
  saved: SavedHost,
): Promise<string | undefined> {
  const parse = <T>(name: SettingName): T | undefined => {
    const parsed = parseSetting(name, raw[name] ?? "");
    return "value" in parsed ? (parsed.value as T) : undefined;
  };
  const arch = parse<Arch>("QEMUARCH");
  const accel = parse<Settings["ACCEL"]>("ACCEL");
  if (arch === undefined || accel === undefined) return undefined;
  try {
    const capabilities = await probeQemu(ARCH[arch].binary, cacheDirectory);
    return findOtherHost(saved, resolveAccel(accel, arch, hostArch).accel, capabilities);
  } catch (error) {
    if (error instanceof VmError) return undefined;
    throw error;
  }
}
