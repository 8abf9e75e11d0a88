/** Retention: restic's rules (its manual, "Removing snapshots according to a policy") as a function. */

export const PERIODS = ["last", "hourly", "daily", "weekly", "monthly", "yearly"] as const;
export type Period = (typeof PERIODS)[number];

/** How many periods of each kind to keep; absent or 0: no such rule. */
export type Rules = Partial<Record<Period, number | undefined>>;

export const hasRules = (rules: Rules): boolean => PERIODS.some((period) => (rules[period] ?? 0) > 0);

/** A snapshot, as input of the decision. */
export interface RetentionCandidate {
  name: string;
  made: Date;
  /** LAST refers to it. */
  last: boolean;
  protected: boolean;
  /** Kept for inspection, without counting for a rule. */
  damaged: boolean;
  /** Belongs to another VM: likewise. */
  foreign: boolean;
  /** Snapshots that its disks are incremental on. */
  parents: readonly string[];
  /** Working disks that are overlays on its own. */
  disks: readonly string[];
  /** The process that reads it. */
  reader?: string | undefined;
  /** Its data can be merged into dependent snapshots, and that of its parents into it. */
  mergeable?: boolean;
}

export interface Verdict {
  name: string;
  made: Date;
  keep: boolean;
  /** Why it is kept; none if it is removed. */
  reasons: string[];
  /** Kept snapshots that depend on it: its data is merged into these, then it is removed. */
  into: string[];
  /** Its timestamp is in the future (a wrong clock): it is kept, without counting for a rule. */
  future: boolean;
  /** It is of another VM: the same. */
  foreign: boolean;
}

/** Oldest first; those of the same time by name, `S9` before `S10`. */
export const byAge = (
  a: Pick<RetentionCandidate, "made" | "name">,
  b: Pick<RetentionCandidate, "made" | "name">,
): number =>
  a.made.getTime() - b.made.getTime() ||
  a.name.localeCompare(b.name, "en", { numeric: true }) ||
  (a.name < b.name ? -1 : 1);

const DAY_MS = 86_400_000;

/** ISO 8601: a week belongs to the year of its Thursday. */
function isoWeek(time: Date): string {
  const day = Date.UTC(time.getFullYear(), time.getMonth(), time.getDate());
  const thursday = new Date(day + (3 - ((time.getDay() + 6) % 7)) * DAY_MS);
  const year = thursday.getUTCFullYear();
  return `${year}W${Math.floor((thursday.getTime() - Date.UTC(year, 0, 1)) / DAY_MS / 7)}`;
}

/** The period of a time, in local time: an hour repeated at the end of DST is one. */
const PERIOD_OF: Record<Exclude<Period, "last">, (time: Date) => string> = {
  hourly: (time) => `${PERIOD_OF.daily(time)} ${time.getHours()}`,
  daily: (time) => `${PERIOD_OF.monthly(time)}-${time.getDate()}`,
  weekly: isoWeek,
  monthly: (time) => `${time.getFullYear()}-${time.getMonth()}`,
  yearly: (time) => String(time.getFullYear()),
};

/** The newest of each of the last `count` periods that have any, and the oldest of all if the count is not used up. */
function keptBy(
  period: Period,
  count: number,
  newestFirst: readonly RetentionCandidate[],
): RetentionCandidate[] {
  if (period === "last") return newestFirst.slice(0, count);
  const kept: RetentionCandidate[] = [];
  let before: string | undefined;
  for (const [index, item] of newestFirst.entries()) {
    if (kept.length === count) break;
    const now = PERIOD_OF[period](item.made);
    if (now !== before || index === newestFirst.length - 1) kept.push(item);
    before = now;
  }
  return kept;
}

/**
 * Decides for each snapshot whether to keep it, and why. Rules count intact ones only: of this VM, not damaged, not with
 * a timestamp in the future. Always kept: the newest intact one, LAST, protected and damaged ones, those that are being
 * read, and those that working disks depend on. Those that kept ones depend on are merged into these, or kept as well.
 * @returns oldest first
 */
export function decideRetention(all: readonly RetentionCandidate[], rules: Rules, now: Date): Verdict[] {
  const sorted = all.toSorted(byAge);
  const reasons = new Map<string, string[]>(sorted.map(({ name }) => [name, []]));
  const keep = (name: string, reason: string): void => void reasons.get(name)?.push(reason);
  const isFuture = ({ made }: RetentionCandidate): boolean => made.getTime() > now.getTime();
  const newestFirst = sorted.filter((item) => !item.damaged && !item.foreign && !isFuture(item)).toReversed();
  for (const period of PERIODS)
    for (const { name } of keptBy(period, rules[period] ?? 0, newestFirst)) keep(name, period);
  for (const item of sorted) {
    if (item.last) keep(item.name, "LAST");
    if (item.protected) keep(item.name, "protected");
    if (item.damaged) keep(item.name, "damaged");
    if (item.foreign) keep(item.name, "of another VM");
    if (isFuture(item)) keep(item.name, "in the future");
    if (item.reader !== undefined) keep(item.name, `read by ${item.reader}`);
    for (const disk of item.disks) keep(item.name, `${disk} builds on it`);
  }
  const newest = newestFirst[0]?.name;
  if (newest !== undefined && reasons.get(newest)!.length === 0) keep(newest, "newest good one");
  const heirs = decideMerges(
    sorted,
    new Set(sorted.flatMap(({ name }) => (reasons.get(name)![0] ? [name] : []))),
  );
  for (const [name, { into, merge }] of heirs)
    if (!merge) for (const heir of into) keep(name, `${heir} builds on it`);
  return sorted.map((item) => {
    const { name, made } = item;
    const why = reasons.get(name)!;
    const { into = [], merge = false } = heirs.get(name) ?? {};
    return {
      name,
      made,
      keep: why.length > 0,
      reasons: why,
      into: why.length === 0 && merge ? into : [],
      future: isFuture(item),
      foreign: item.foreign,
    };
  });
}

/**
 * Decides about snapshots that kept ones depend on.
 * @param kept names of those that are kept by a rule
 * @returns by name: whether its data can be merged, and the nearest kept ones that depend on it
 */
function decideMerges(
  all: readonly RetentionCandidate[],
  kept: ReadonlySet<string>,
): Map<string, { into: string[]; merge: boolean }> {
  const byName = new Map(all.map((item) => [item.name, item]));
  const needed = new Set(kept);
  for (const name of needed) for (const parent of byName.get(name)?.parents ?? []) needed.add(parent);
  const children = new Map<string, RetentionCandidate[]>();
  for (const item of all)
    if (needed.has(item.name))
      for (const parent of item.parents) children.set(parent, [...(children.get(parent) ?? []), item]);
  const merges = (item: RetentionCandidate): boolean =>
    !kept.has(item.name) &&
    [item, ...(children.get(item.name) ?? [])].every(({ mergeable }) => mergeable === true);
  // Damaged manifests may form a cycle.
  const heirsOf = (name: string, seen = new Set([name])): string[] =>
    (children.get(name) ?? []).flatMap((child) => {
      if (seen.has(child.name)) return [];
      seen.add(child.name);
      return merges(child) ? heirsOf(child.name, seen) : [child.name];
    });
  return new Map(
    [...needed].flatMap((name) => {
      const item = byName.get(name);
      const into = heirsOf(name);
      return item && into.length > 0 ? [[name, { into, merge: merges(item) }] as const] : [];
    }),
  );
}
