import { plain } from "../../lib/text.ts";
import { formatSize } from "../../lib/size.ts";
import { formatDuration } from "../../lib/time.ts";
import type { SnapshotFormat } from "../../machine/types.ts";

/** What was found of one snapshot. */
export interface Report {
  name: string;
  /** Absent where its manifest cannot be read. */
  format: SnapshotFormat | "earlier" | undefined;
  ok: boolean;
  /** What is bad, one line each. */
  problems: string[];
  /** A newer version of this program made it: it was not looked at. */
  newer?: true | undefined;
  /** What could not be checked, and what does no harm. */
  notes: string[];
  /** What it occupies, and how long looking took. */
  bytes: number;
  seconds: number;
  /** How it showed that it boots. */
  booted?: string | undefined;
  /** It is good, but did not boot in time. */
  late?: true | undefined;
}

/** One line for a snapshot, and what is to be said of it below. */
export function formatReport(report: Report): string {
  const { name, format, ok, newer, problems, notes, bytes, seconds, booted } = report;
  const facts = [
    ok ? "good" : newer ? "NOT READABLE HERE" : "BAD",
    ...(format === undefined ? [] : [format === "earlier" ? "gz of the earlier program" : format]),
    formatSize(bytes),
    formatDuration(seconds),
    ...(booted === undefined ? [] : [`boots (${booted})`]),
  ];
  const below = [...problems, ...notes.map((note) => `note: ${note}`)];
  // All of it may stand in a file of the snapshot.
  const lines = [`${name}: ${facts.join(", ")}`, ...below].map(plain);
  return `${lines.join("\n  ")}\n`;
}
