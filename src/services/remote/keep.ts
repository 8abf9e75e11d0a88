import { plain } from "../../lib/text.ts";
import { VmError } from "../../lib/errors.ts";
import { toJson } from "../../lib/json.ts";
import { isQuiet, log } from "../../lib/log.ts";
import { PERIODS, type Rules } from "../../store/retention.ts";
import type { Context } from "../context.ts";
import { listRemote, remoteNameOf, TAG, type RemoteSnapshot } from "./list.ts";
import { openRepository } from "./restic.ts";

/** What restic says it keeps and removes (`restic forget --json`). */
interface Group {
  keep: { id: string }[] | null;
  remove: { id: string }[] | null;
  reasons?: { snapshot: { id: string }; matches: string[] }[] | null;
}

/**
 * Removes this VM's snapshots from the repository that no rule keeps, by restic's own means; the newest and protected
 * ones stay. None builds on another there.
 */
export async function pruneRemote(
  context: Context,
  rules: Rules,
  { dryRun, json }: { dryRun: boolean; json: boolean },
): Promise<void> {
  const repository = await openRepository(context);
  const vm = remoteNameOf(context);
  const known = new Map((await listRemote(repository, vm)).map((item) => [item.id, item]));
  const kept = { ...rules, last: Math.max(1, rules.last ?? 0) };
  const words = [
    "forget",
    "--json",
    "--tag",
    `${TAG.ours},${TAG.vm(vm)}`,
    "--group-by",
    "",
    "--keep-tag",
    TAG.protected,
    ...PERIODS.flatMap((period) =>
      (kept[period] ?? 0) > 0 ? [`--keep-${period}`, String(kept[period])] : [],
    ),
    ...(dryRun ? ["--dry-run"] : []),
  ];
  const { stdout } = await repository.run(words, { what: "cannot remove old snapshots from the repository" });
  const groups = (JSON.parse(stdout.trim() || "[]") as Group[] | null) ?? [];
  const reasons = new Map(
    groups.flatMap((group) => group.reasons ?? []).map((item) => [item.snapshot.id, item.matches]),
  );
  const removed = new Set(groups.flatMap((group) => group.remove ?? []).map(({ id }) => id));
  const verdicts = [...known.values()].map((item) => ({
    item,
    keep: !removed.has(item.id),
    reasons: reasons.get(item.id) ?? [],
  }));
  if (json) context.print(toJson(verdicts.map(forPrograms)));
  else if (dryRun || !isQuiet()) context.print(verdicts.map(formatVerdict).join(""));
  if (dryRun) return;
  // What only those had is still there; restic finds it, and may be interrupted at it.
  if (removed.size > 0)
    await repository.run(["prune"], {
      what: "old snapshots are removed from the repository, but not their data",
    });
  log.success(`removed ${removed.size} of ${known.size} snapshots from the repository`);
}

interface Verdict {
  item: RemoteSnapshot;
  keep: boolean;
  reasons: string[];
}

const forPrograms = ({ item: { id, name, made }, keep, reasons }: Verdict): object => ({
  id,
  name,
  made,
  action: keep ? "keep" : "remove",
  reasons,
});

const formatVerdict = ({ item, keep, reasons }: Verdict): string =>
  keep ? `keep ${plain(item.name)}  ${plain(reasons.join(", "))}\n` : `remove ${plain(item.name)}\n`;

/**
 * Has restic look whether the repository is whole.
 * @param deep reads all that is in it
 * @throws 74 when it is not
 */
export async function checkRemote(context: Context, deep: boolean): Promise<void> {
  const repository = await openRepository(context);
  try {
    await repository.run(["check", ...(deep ? ["--read-data"] : [])], {
      what: "the repository is not whole",
    });
  } catch (error) {
    if (error instanceof VmError && error.code === "io")
      throw new VmError("io", error.message, {
        hint: 'restic\'s manual, "Troubleshooting", tells what can be mended',
      });
    throw error;
  }
  const all = await listRemote(repository, remoteNameOf(context));
  if (!isQuiet()) context.print(`good  the repository, with ${all.length} snapshots of this VM\n`);
}
