import { commandLine } from "../../lib/command-line.ts";
import { toJson } from "../../lib/json.ts";
import { log } from "../../lib/log.ts";
import { resolveWork } from "../../store/workdir.ts";
import { usersOfSnapshots } from "../../vm/clones.ts";
import type { Context } from "../../vm/context.ts";
import { dependentsOf } from "../../store/snapshot-dependents.ts";
import { requireVm } from "../../store/no-vm.ts";
import { findHostdir } from "../../vm/find.ts";
import { inspectSnapshots, type SnapshotFacts } from "../../store/snapshot-info.ts";
import { formatSnapshot, formatSnapshots, type ShownSnapshot } from "./text.ts";
import { findSnapshot } from "../../store/snapshots.ts";
import { readSums } from "../../store/checksums.ts";

/** Lists the VM's snapshots, oldest first; takes no lock and no settings. */
export function showSnapshotList(context: Context, json: boolean): void {
  const hostdir = findHostdir(context);
  const all = inspectSnapshots(hostdir).map(({ facts }) => facts);
  if (all.length === 0) requireVm(hostdir);
  if (json) return context.print(toJson(all, LIST_KEYS));
  if (all.length > 0) return context.print(formatSnapshots(all));
  log.info(`the VM in ${hostdir} has no snapshots; create one: ${commandLine("backup")}`);
}

/** All facts but files. */
const LIST_KEYS = [
  "name",
  "made",
  "last",
  "protected",
  "format",
  "parent",
  "consistency",
  "guestBytes",
  "ramBytes",
  "addedBytes",
  "description",
  "problem",
] satisfies (keyof SnapshotFacts)[];

/** Prints all facts about snapshots. @throws 66 if one does not exist */
export function showSnapshots(context: Context, names: readonly string[], json: boolean): void {
  const hostdir = findHostdir(context);
  const wanted = names.map((name) => findSnapshot(hostdir, name).name);
  const known = inspectSnapshots(hostdir);
  const all = known.map(({ snapshot }) => snapshot);
  const users = usersOfSnapshots({ hostdir, work: resolveWork(hostdir) });
  const shown = wanted.flatMap((name) =>
    known
      .filter(({ facts }) => facts.name === name)
      .map(({ snapshot, facts }): ShownSnapshot => ({
        ...facts,
        vm: snapshot.manifest?.vm ?? null,
        id: snapshot.manifest?.id ?? null,
        summed: [...readSums(snapshot.dir).keys()],
        dependents: dependentsOf(name, all, users),
      })),
  );
  context.print(json ? toJson(shown) : shown.map((item) => formatSnapshot(item)).join("\n"));
}
