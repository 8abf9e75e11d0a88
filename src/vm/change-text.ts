import type { SettingName } from "../config/schema.ts";
import type { NextRunChange } from "./running-settings.ts";

const NOUN: Partial<Record<SettingName, string>> = { FORWARDS: "forward", SHARES: "share" };

/** `MEMORY: 64M -> 1G`, `card 2 added: user`, `forward only of this run: tcp::5555-:22` */
export function describeChange({ setting, card, running, nextRun }: NextRunChange): string {
  const what = card === undefined ? (NOUN[setting] ?? setting) : `card ${card}`;
  const [before, after] = [running, nextRun].map((text) => text?.replace(/^hostfwd=/, ""));
  if (before === undefined) return `${what} added: ${after}`;
  if (after === undefined) return `${what} only of this run: ${before}`;
  return `${what}: ${before} -> ${after}`;
}
