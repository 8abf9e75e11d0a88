import { plain } from "../../lib/text.ts";
import { formatSize } from "../../lib/size.ts";
import { formatDuration } from "../../lib/time.ts";
import type { SnapshotFormat } from "../../machine/types.ts";

/** Result for one snapshot. */
export interface Report {
  name: string;
  /** Absent if the manifest cannot be read. */
  format: SnapshotFormat | "earlier" | undefined;
  ok: boolean;
  /** One line each. */
  problems: string[];
  /** Created by a newer version of this program: not checked. */
  newer?: true | undefined;
  /** Harmless findings, and what could not be checked. */
  notes: string[];
  /** Size, and duration of the check. */
  bytes: number;
  seconds: number;
  /** Sign of the successful boot. */
  booted?: string | undefined;
  /** The same for a snapshot with RAM. */
  resumed?: string | undefined;
  /** Intact, but did not boot in time. */
  late?: true | undefined;
}

/** What booting or resuming a copy adds to it. */
export type BootOutcome = Partial<Pick<Report, "booted" | "resumed" | "late" | "ok" | "problems" | "notes">>;

/** Condition for a booted guest. */
export interface BootWait {
  /** Output of the serial console; absent: a login prompt, or the guest agent. */
  pattern: RegExp | undefined;
  seconds: number;
}

/** Formats a line for the snapshot, then its problems and notes. */
export function formatReport(report: Report): string {
  const { name, format, ok, newer, problems, notes, bytes, seconds, booted, resumed } = report;
  const facts = [
    ok ? "good" : newer ? "NOT READABLE HERE" : "BAD",
    ...(format === undefined ? [] : [format === "earlier" ? "gz of the earlier program" : format]),
    formatSize(bytes),
    formatDuration(seconds),
    ...(booted === undefined ? [] : [`boots (${booted})`]),
    ...(resumed === undefined ? [] : [`resumes (${resumed})`]),
  ];
  const below = [...problems, ...notes.map((note) => `note: ${note}`)];
  // Any of it may come from a file of the snapshot.
  const lines = [`${name}: ${facts.join(", ")}`, ...below].map(plain);
  return `${lines.join("\n  ")}\n`;
}
