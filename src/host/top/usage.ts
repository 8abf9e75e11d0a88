import { formatSize } from "../../lib/size.ts";
import { formatTable } from "../../lib/table.ts";
import { plain } from "../../lib/text.ts";
import type { Sample } from "./sample.ts";

/** What a running VM uses, as `top --json` prints it; null: not known. */
export interface Usage {
  name: string;
  directory: string;
  pid: number;
  /** Of one processor. */
  cpuPercent: number | null;
  rssBytes: number;
  pssBytes: number | null;
  /** The guest's RAM. */
  memoryBytes: number;
  disk: Rates<"readBytes" | "writtenBytes" | "reads" | "writes"> | null;
  network: Rates<"receivedBytes" | "sentBytes"> | null;
}

type Rates<Name extends string> = Record<`${Name}PerSecond`, number>;

/** Pure: counters per second between two moments; null if one lacks them. */
function ratesOf<Name extends string>(
  before: Record<Name, number> | null,
  now: Record<Name, number> | null,
  seconds: number,
): Rates<Name> | null {
  if (!before || !now) return null;
  const pairs = (Object.keys(now) as Name[]).map((name) => [
    `${name}PerSecond`,
    // A restarted qemu counts from 0 again.
    Math.max(0, Math.round((now[name] - before[name]) / seconds)),
  ]);
  return Object.fromEntries(pairs) as Rates<Name>;
}

/** Pure: what was used between two samples. @param before of the same process; undefined: the first one */
export function measureUsage(
  vm: Pick<Usage, "name" | "directory" | "pid" | "memoryBytes">,
  before: Sample | undefined,
  now: Sample,
): Usage {
  const seconds = before ? Math.max(0.001, (now.atMs - before.atMs) / 1000) : 0;
  return {
    ...vm,
    cpuPercent: before ? Math.round(((now.cpuSeconds - before.cpuSeconds) / seconds) * 1000) / 10 : null,
    rssBytes: now.rssBytes,
    pssBytes: now.pssBytes,
    disk: before ? ratesOf(before.disk, now.disk, seconds) : null,
    network: before ? ratesOf(before.network, now.network, seconds) : null,
  };
}

const HEAD = ["NAME", "PID", "CPU %", "RSS", "PSS", "RAM", "READ/S", "WRITE/S", "NET IN/S", "NET OUT/S"];

const sizeOrDash = (bytes: number | null | undefined): string =>
  bytes === null || bytes === undefined ? "-" : formatSize(bytes);

/** Pure: a table, the busiest VM first. */
export function formatUsages(all: readonly Usage[]): string {
  const sorted = all.toSorted((one, other) => (other.cpuPercent ?? 0) - (one.cpuPercent ?? 0));
  const rows = sorted.map(({ name, pid, cpuPercent, rssBytes, pssBytes, memoryBytes, disk, network }) => [
    plain(name),
    String(pid),
    cpuPercent === null ? "-" : cpuPercent.toFixed(1),
    sizeOrDash(rssBytes),
    sizeOrDash(pssBytes),
    sizeOrDash(memoryBytes),
    sizeOrDash(disk?.readBytesPerSecond),
    sizeOrDash(disk?.writtenBytesPerSecond),
    sizeOrDash(network?.receivedBytesPerSecond),
    sizeOrDash(network?.sentBytesPerSecond),
  ]);
  return formatTable([HEAD, ...rows]);
}
