import { plain } from "../../lib/text.ts";
import { formatSize } from "../../lib/size.ts";
import { formatTable } from "../../lib/table.ts";
import { formatTimestamp } from "../../lib/time.ts";
import type { SnapshotFacts } from "../../store/snapshot-info.ts";

const HEAD = ["NAME", "TIME", "SIZE", "ADDED", "FORMAT", "PARENT", "STATE", "MARKS", "DESCRIPTION"];

/** Facts of `show`. */
export interface ShownSnapshot extends SnapshotFacts {
  /** UUID of the VM, and id of the snapshot; null in older snapshots. */
  vm: string | null;
  id: string | null;
  /** Files listed in SHA256SUMS. */
  summed: string[];
  /** Snapshots and working disks that depend on it. */
  dependents: string[];
}

const stateOf = ({ problem, newer, consistency }: SnapshotFacts): string =>
  problem === null ? (consistency ?? "not known") : newer ? "newer" : "damaged";

const marksOf = (item: SnapshotFacts): string =>
  [item.last ? "LAST" : "", item.ramBytes === null ? "" : "RAM", item.protected ? "protected" : ""]
    .filter(Boolean)
    .join(", ");

const guestSize = ({ guestBytes }: SnapshotFacts): string =>
  guestBytes === null ? "not known" : formatSize(guestBytes);

/** Formats snapshots as a table. */
export function formatSnapshots(all: readonly SnapshotFacts[]): string {
  const rows = all.map((item) => [
    plain(item.name),
    formatTimestamp(item.made),
    guestSize(item),
    formatSize(item.addedBytes),
    item.format,
    plain(item.parent ?? ""),
    stateOf(item),
    marksOf(item),
    plain(item.description.split("\n")[0]!),
  ]);
  const problems = all.flatMap(({ name, problem }) =>
    problem === null ? [] : [`${plain(name)}: ${plain(problem)}\n`],
  );
  return formatTable([HEAD, ...rows]) + problems.join("");
}

/** Facts of several lines; those after the first are indented. */
const MULTILINE = new Set(["problem", "description"]);

/** Formats one snapshot, one fact per line. */
export function formatSnapshot(item: ShownSnapshot): string {
  const summed = new Set(item.summed);
  const facts: [string, string | undefined][] = [
    ["name", item.name],
    ["made", formatTimestamp(item.made)],
    ["problem", item.problem ?? undefined],
    ["state", stateOf(item)],
    ["format", item.format],
    ["parent", item.parent ?? undefined],
    ["size", guestSize(item)],
    ["RAM", item.ramBytes === null ? undefined : formatSize(item.ramBytes)],
    ["added", formatSize(item.addedBytes)],
    ["marks", marksOf(item) || undefined],
    ["description", item.description || undefined],
    ...item.files.map(({ name, bytes }): [string, string] => [
      "file",
      `${name}: ${formatSize(bytes)}${summed.has(name) ? ", with a checksum" : ""}`,
    ]),
    ...item.dependents.map((name): [string, string] => ["needed by", name]),
  ];
  return facts
    .flatMap(([name, text]) =>
      text === undefined
        ? []
        : [
            `${`${name}:`.padEnd(15)}${MULTILINE.has(name) ? text.split("\n").map(plain).join("\n  ") : plain(text)}\n`,
          ],
    )
    .join("");
}
