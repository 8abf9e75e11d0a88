import type { Settings } from "../config/schema.ts";
import { deriveMac } from "../machine/mac.ts";
import type { Nic } from "../machine/types.ts";

/** Pure: the network cards of a machine with these settings. */
export const nicsOf = (settings: Settings): Nic[] =>
  settings.USENETDEV ? [{ number: 1, mac: macOf(settings), forwards: settings.FORWARDS }] : [];

/** The MAC address of the first card; undefined: qemu's default. */
function macOf({ MAC, UUID }: Settings): string | undefined {
  if (MAC !== "auto") return MAC || undefined;
  return UUID === "" ? undefined : deriveMac(UUID, 1);
}
