import { log } from "../lib/log.ts";
import { plain } from "../lib/text.ts";
import { formatTimestamp } from "../lib/time.ts";
import { decideRetention, type Rules, type Verdict } from "../store/retention.ts";
import { parentsOf } from "../store/snapshot-dependents.ts";
import { usersOfSnapshots } from "../vm/clones.ts";
import { foreignUuid, identityOf } from "../vm/identity.ts";
import type { Vm } from "../vm/find.ts";
import { findDamage } from "../store/snapshot-damage.ts";
import { findReader } from "../store/reading.ts";
import { inspectSnapshots, type SnapshotInfo } from "../store/snapshot-info.ts";

/** The action for each snapshot of a VM. */
export interface Decision {
  all: SnapshotInfo[];
  verdicts: Verdict[];
  /** Damage by snapshot name. */
  damage: ReadonlyMap<string, string | undefined>;
}

/** @param merge whether to merge snapshots into those that depend on them */
export function decide(vm: Vm, rules: Rules, merge: boolean): Decision {
  const all = inspectSnapshots(vm.hostdir);
  const users = usersOfSnapshots(vm);
  const byName = new Map(all.map(({ snapshot }) => [snapshot.name, snapshot]));
  const looked = new Map<string, string | undefined>();
  const damage = new Map(
    all.map(({ snapshot, facts }) => [
      facts.name,
      facts.problem ?? findDamage(snapshot, (name) => byName.get(name), { known: looked }),
    ]),
  );
  const own = identityOf(vm);
  const candidates = all.map(({ snapshot, facts }) => {
    const damaged = damage.get(facts.name) !== undefined;
    const foreign = foreignUuid(own, snapshot.manifest?.vm) !== undefined;
    return {
      name: facts.name,
      made: facts.made,
      last: facts.last,
      protected: facts.protected,
      damaged,
      foreign,
      parents: parentsOf(snapshot),
      disks: users.get(facts.name) ?? [],
      reader: findReader(snapshot),
      mergeable: merge && !damaged && !foreign && snapshot.manifest !== undefined,
    };
  });
  const verdicts = decideRetention(candidates, rules, new Date());
  return { all, verdicts, damage };
}

/** Warns about snapshots that count for no rule. */
export function warnAboutUncounted({ all, verdicts, damage }: Decision): void {
  for (const { name, made, future } of verdicts)
    if (future)
      log.warn(
        `${plain(name)} has a timestamp in the future (${formatTimestamp(made)}): keeping it, and counting it for no rule`,
      );
  for (const { name, foreign } of verdicts)
    if (foreign) log.warn(`${plain(name)} is of another VM: keeping it, and counting it for no rule`);
  for (const { name, newer } of all.map(({ facts }) => facts)) {
    const problem = damage.get(name);
    if (problem !== undefined)
      log.warn(`keeping ${plain(name)}: it ${newer ? "cannot be read" : "is damaged"}: ${plain(problem)}`);
  }
}
