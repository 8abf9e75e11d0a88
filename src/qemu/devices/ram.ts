import type { Machine } from "../../machine/types.ts";
import { escapeCommas } from "../text.ts";

/** qemu's name of the guest's RAM, if that is a file. */
export const RAM_ID = "ram";

/** What `-machine` has for it. */
export const ramOption = ({ ram }: Pick<Machine, "ram">): string =>
  ram === undefined ? "" : `,memory-backend=${RAM_ID}`;

/**
 * The file that is the guest's RAM. Not memory-backend-memfd: since qemu 8.1, the migration capability x-ignore-shared leaves
 * out named files only (migration/ram.c, ramblock_is_ignored).
 */
export function buildRamArgs({ ram, memoryMiB }: Pick<Machine, "ram" | "memoryMiB">): string[] {
  if (ram === undefined) return [];
  const options = `size=${memoryMiB}M,mem-path=${escapeCommas(ram.path)},share=${ram.shared ? "on" : "off"}`;
  return ["-object", `memory-backend-file,id=${RAM_ID},${options}`];
}
