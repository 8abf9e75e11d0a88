import { afterEach, describe, expect, test } from "bun:test";
import {
  byAge,
  decideRetention,
  hasRules,
  PERIODS,
  type RetentionCandidate,
  type Rules,
} from "../../src/store/retention.ts";

const zone = process.env.TZ;
afterEach(() => {
  if (zone === undefined) delete process.env.TZ;
  else process.env.TZ = zone;
});

const LATER = new Date("2100-01-01T00:00:00Z");

const candidate = (name: string, made: Date, more: Partial<RetentionCandidate> = {}): RetentionCandidate => ({
  name,
  made,
  last: false,
  protected: false,
  damaged: false,
  foreign: false,
  parents: [],
  disks: [],
  ...more,
});

/** Snapshots named by their times, in local time unless a zone is given. */
const at = (...times: string[]): RetentionCandidate[] => times.map((time) => candidate(time, new Date(time)));

const kept = (all: readonly RetentionCandidate[], rules: Rules): string[] =>
  decideRetention(all, rules, LATER)
    .filter(({ keep }) => keep)
    .map(({ name }) => name);

const reasonsOf = (all: readonly RetentionCandidate[], rules: Rules, name: string): string[] | undefined =>
  decideRetention(all, rules, LATER).find((item) => item.name === name)?.reasons;

describe("the newest of each period that has one:", () => {
  // The first of each list is the oldest, and would be kept for that: see below.
  test.each<[title: string, rules: Rules, times: string[], kept: string[]]>([
    ["last", { last: 2 }, ["2026-01-01", "2026-01-02", "2026-01-03"], ["2026-01-02", "2026-01-03"]],
    [
      "hours",
      { hourly: 2 },
      ["2026-01-01T08:00", "2026-01-01T09:00", "2026-01-01T09:59", "2026-01-01T12:00"],
      ["2026-01-01T09:59", "2026-01-01T12:00"],
    ],
    [
      "days, with gaps",
      { daily: 2 },
      ["2026-01-01T10:00", "2026-01-05T00:00", "2026-01-05T23:59", "2026-03-01T12:00"],
      ["2026-01-05T23:59", "2026-03-01T12:00"],
    ],
    [
      "weeks start on Monday",
      { weekly: 2 },
      ["2026-11-08T12:00", "2026-11-15T23:59", "2026-11-16T00:00", "2026-11-22T12:00"],
      ["2026-11-15T23:59", "2026-11-22T12:00"],
    ],
    [
      "a week across the end of the year is one",
      { weekly: 2 },
      ["2025-12-21T12:00", "2025-12-28T12:00", "2025-12-29T12:00", "2025-12-31T12:00", "2026-01-04T12:00"],
      ["2025-12-28T12:00", "2026-01-04T12:00"],
    ],
    [
      "week 53, and 1 January in the old year's last",
      { weekly: 3 },
      ["2020-12-20T12:00", "2020-12-27T12:00", "2020-12-31T12:00", "2021-01-03T12:00", "2021-01-04T12:00"],
      ["2020-12-27T12:00", "2021-01-03T12:00", "2021-01-04T12:00"],
    ],
    [
      "a leap day is a day",
      { daily: 3 },
      ["2024-02-27T12:00", "2024-02-28T12:00", "2024-02-29T01:00", "2024-02-29T12:00", "2024-03-01T12:00"],
      ["2024-02-28T12:00", "2024-02-29T12:00", "2024-03-01T12:00"],
    ],
    [
      "months",
      { monthly: 2 },
      ["2024-01-31T12:00", "2024-02-01T12:00", "2024-02-29T12:00", "2024-03-01T12:00"],
      ["2024-02-29T12:00", "2024-03-01T12:00"],
    ],
    [
      "the same month of another year is another",
      { monthly: 2 },
      ["2023-05-01", "2024-05-01", "2025-05-01"],
      ["2024-05-01", "2025-05-01"],
    ],
    ["years", { yearly: 1 }, ["2024-01-01", "2025-01-01", "2025-12-31"], ["2025-12-31"]],
    [
      "all rules together",
      { last: 1, daily: 2, monthly: 2 },
      ["2025-12-01", "2026-01-10", "2026-01-31", "2026-02-01T08:00", "2026-02-01T09:00"],
      ["2026-01-31", "2026-02-01T09:00"],
    ],
    ["0 is no rule", { last: 1, daily: 0 }, ["2026-01-01", "2026-01-02"], ["2026-01-02"]],
  ])("%s", (_title, rules, times, expected) => {
    expect(kept(at(...times), rules)).toEqual(expected);
  });

  test("keeps the oldest as well, while a count lasts (restic)", () => {
    const all = at("2026-01-01T08:00", "2026-01-01T09:00", "2026-01-01T10:00");
    expect(kept(all, { daily: 1 })).toEqual(["2026-01-01T10:00"]);
    expect(kept(all, { daily: 2 })).toEqual(["2026-01-01T08:00", "2026-01-01T10:00"]);
  });
});

describe("daylight saving time:", () => {
  const hours = [
    "2026-10-24T23:30:00Z",
    "2026-10-25T00:30:00Z",
    "2026-10-25T01:30:00Z",
    "2026-10-25T02:30:00Z",
  ];

  test("the repeated hour is one hour", () => {
    process.env.TZ = "Europe/Berlin";
    // 01:30, 02:30, 02:30 again, 03:30.
    expect(kept(at(...hours), { hourly: 2 })).toEqual([hours[2]!, hours[3]!]);
    expect(kept(at("2026-10-24T12:00:00Z", ...hours), { hourly: 3 })).toEqual([
      hours[0]!,
      hours[2]!,
      hours[3]!,
    ]);
  });

  test("the skipped hour needs no snapshot", () => {
    process.env.TZ = "Europe/Berlin";
    const spring = ["2026-03-28T12:00:00Z", "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"];
    expect(kept(at(...spring), { hourly: 2 })).toEqual(spring.slice(1));
  });

  test("days are those of local time", () => {
    const all = at("2026-06-30T12:00:00Z", "2026-07-01T03:00:00Z", "2026-07-01T23:00:00Z");
    process.env.TZ = "America/New_York";
    expect(kept(all, { daily: 1 })).toEqual(["2026-07-01T23:00:00Z"]);
    expect(kept(all, { daily: 2 })).toEqual(["2026-07-01T03:00:00Z", "2026-07-01T23:00:00Z"]);
    process.env.TZ = "Asia/Tokyo";
    expect(kept(all, { daily: 2 })).toEqual(["2026-07-01T03:00:00Z", "2026-07-01T23:00:00Z"]);
    process.env.TZ = "UTC";
    expect(kept(all, { daily: 2 })).toEqual(["2026-06-30T12:00:00Z", "2026-07-01T23:00:00Z"]);
  });
});

describe("for any rules:", () => {
  const [s0, s1, s2, s3] = at("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04") as [
    RetentionCandidate,
    RetentionCandidate,
    RetentionCandidate,
    RetentionCandidate,
  ];
  const rules: Rules = { last: 1 };

  test.each<[why: string, all: RetentionCandidate[], kept: string[], reason: string]>([
    ["LAST stays", [{ ...s0, last: true }, s1, s2, s3], [s0.name, s3.name], "LAST"],
    ["keeps a protected one", [{ ...s0, protected: true }, s1, s2, s3], [s0.name, s3.name], "protected"],
    ["keeps a damaged one", [{ ...s0, damaged: true }, s1, s2, s3], [s0.name, s3.name], "damaged"],
    [
      "keeps the parent of a working disk",
      [{ ...s0, disks: ["the working disk disk-0.img"] }, s1, s2, s3],
      [s0.name, s3.name],
      "the working disk disk-0.img builds on it",
    ],
    [
      "keeps a parent",
      [s0, s1, s2, { ...s3, parents: [s0.name] }],
      [s0.name, s3.name],
      `${s3.name} builds on it`,
    ],
    [
      "keeps parents of parents",
      [s0, { ...s1, parents: [s0.name] }, s2, { ...s3, parents: [s1.name] }],
      [s0.name, s1.name, s3.name],
      `${s1.name} builds on it`,
    ],
    [
      "keeps parents of a damaged one",
      [s0, { ...s1, parents: [s0.name], damaged: true }, s2, s3],
      [s0.name, s1.name, s3.name],
      `${s1.name} builds on it`,
    ],
  ])("%s", (_why, all, expected, reason) => {
    expect(kept(all, rules)).toEqual(expected);
    expect(reasonsOf(all, rules, s0.name)).toEqual([reason]);
  });

  test("a damaged one does not count", () => {
    expect(kept([s0, s1, s2, { ...s3, damaged: true }], rules)).toEqual([s2.name, s3.name]);
  });

  test("removes a parent together with its child; a missing one is ignored", () => {
    expect(kept([s0, { ...s1, parents: [s0.name] }, s2, { ...s3, parents: ["gone"] }], rules)).toEqual([
      s3.name,
    ]);
  });

  test("cycles are kept or removed together", () => {
    const ring = [{ ...s0, parents: [s1.name] }, { ...s1, parents: [s0.name] }, s3];
    expect(kept(ring, rules)).toEqual([s3.name]);
    expect(kept([{ ...ring[0]!, protected: true }, ...ring.slice(1)], rules)).toHaveLength(3);
  });
});

test("of equal times the higher name is newer", () => {
  const moment = new Date(0);
  const all = ["S10", "S9", "b", "S2", "a"].map((name) => candidate(name, moment));
  expect(all.toSorted(byAge).map(({ name }) => name)).toEqual(["a", "b", "S2", "S9", "S10"]);
  expect(kept(all, { last: 1 })).toEqual(["S10"]);
});

test("keeps one in the future, reports it, and does not count it", () => {
  const all = at("2026-01-01", "2026-01-02", "2030-01-01");
  const verdicts = decideRetention(all, { last: 1 }, new Date("2026-02-01"));
  expect(verdicts.map(({ keep, future, reasons }) => [keep, future, reasons])).toEqual([
    [false, false, []],
    [true, false, ["last"]],
    [true, true, ["in the future"]],
  ]);
});

test.each([["damaged"], ["foreign"]] as const)("keeps a %s one, without counting it", (what) => {
  const bad = (time: string): RetentionCandidate => candidate(time, new Date(time), { [what]: true });
  const all = [...at("2026-01-01", "2026-01-02"), bad("2026-01-03"), bad("2026-01-04")];
  expect(kept(all, { last: 2 })).toEqual(["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]);
  expect(kept(all, { last: 1 })).toEqual(["2026-01-02", "2026-01-03", "2026-01-04"]);
});

test("never removes the newest intact one", () => {
  const all = at("2026-01-01", "2026-01-02", "2026-01-03");
  expect(kept(all, {})).toEqual(["2026-01-03"]);
  expect(reasonsOf(all, {}, "2026-01-03")).toEqual(["newest good one"]);
  const damaged = all.map((item, index) => ({ ...item, damaged: index === 2 }));
  expect(kept(damaged, {})).toEqual(["2026-01-02", "2026-01-03"]);
});

test("reasons name each rule", () => {
  const all = at("2026-01-01", "2026-01-02");
  expect(reasonsOf(all, { last: 1, daily: 1, yearly: 1 }, "2026-01-02")).toEqual(["last", "daily", "yearly"]);
  expect(reasonsOf(all, { last: 1 }, "2026-01-01")).toEqual([]);
});

test.each<[Rules, boolean]>([
  [{}, false],
  [{ daily: 0, last: undefined }, false],
  [{ daily: 0, yearly: 1 }, true],
])("%j are rules: %p", (rules, expected) => {
  expect(hasRules(rules)).toBe(expected);
});

const day = (n: number): Date => new Date(Date.UTC(2026, 0, n));

/** Each is the child of the one before it. */
const chain = (...more: Partial<RetentionCandidate>[]): RetentionCandidate[] =>
  more.map((item, index) =>
    candidate(`S${index}`, day(index + 1), {
      parents: index > 0 ? [`S${index - 1}`] : [],
      mergeable: item.damaged !== true,
      ...item,
    }),
  );

/** `keep S1: last`, or `S0 > S1` if it is merged into that. */
const decide = (all: readonly RetentionCandidate[]): string[] =>
  decideRetention(all, { last: 1 }, LATER).map(({ name, keep, into, reasons }) =>
    keep ? `keep ${name}: ${reasons.join(", ")}` : [name, ...into].join(" > "),
  );

describe("merging", () => {
  test("a whole chain into the kept one", () => {
    expect(decide(chain({}, {}, {}))).toEqual(["S0 > S2", "S1 > S2", "keep S2: last"]);
  });

  test("into several kept ones", () => {
    const all = [
      ...chain({}, {}),
      candidate("T", day(1), { parents: ["S0"], protected: true, mergeable: true }),
    ];
    expect(decide(all)).toEqual(["S0 > T > S1", "keep T: protected", "keep S1: last"]);
  });

  test("not if a child is damaged", () => {
    expect(decide(chain({}, {}, { damaged: true }, {}).slice(0, 3))).toEqual([
      "S0 > S1",
      "keep S1: last, S2 builds on it",
      "keep S2: damaged",
    ]);
    expect(decide(chain({}, { damaged: true }, { damaged: true }))[0]).toBe("keep S0: last, S1 builds on it");
  });

  test("not a working disk's parent, nor if it is impossible", () => {
    expect(decide(chain({ disks: ["a disk"] }, {}, {}))).toEqual([
      "keep S0: a disk builds on it, S2 builds on it",
      "S1 > S2",
      "keep S2: last",
    ]);
    expect(decide(chain({ mergeable: false }, {}))).toEqual(["keep S0: S1 builds on it", "keep S1: last"]);
  });

  test("terminates for cycles", () => {
    const all = [
      candidate("S0", day(1), { parents: ["S1"], mergeable: true }),
      candidate("S1", day(2), { parents: ["S0"], mergeable: true }),
    ];
    expect(decide(all)).toEqual(["S0 > S1", "keep S1: last"]);
  });
});

/** Mulberry32: the same cases each time. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function makeCase(next: () => number): { all: RetentionCandidate[]; rules: Rules } {
  const count = Math.floor(next() * 40);
  const span = 10 ** (5 + next() * 6.5);
  const all = Array.from({ length: count }, (_, index) =>
    candidate(`S${index}`, new Date(1.7e12 + Math.floor(next() * span)), {
      protected: next() < 0.1,
      damaged: next() < 0.1,
      parents: index > 0 && next() < 0.4 ? [`S${Math.floor(next() * index)}`] : [],
      disks: next() < 0.05 ? ["a disk"] : [],
    }),
  );
  const last = all[Math.floor(next() * count)];
  if (last) last.last = true;
  const rules = Object.fromEntries(PERIODS.map((period) => [period, Math.floor(next() * 6)]));
  return { all, rules };
}

describe("for any snapshots and rules", () => {
  const CASES = 400;

  test(`${CASES} cases have the documented properties`, () => {
    process.env.TZ = "Europe/Berlin";
    const next = random(5);
    for (let index = 0; index < CASES; index++) {
      const { all, rules } = makeCase(next);
      const stay = new Set(kept(all, rules));
      for (const item of all) {
        if (item.last || item.protected || item.damaged || item.disks.length > 0)
          expect(stay.has(item.name)).toBe(true);
        if (stay.has(item.name)) for (const parent of item.parents) expect(stay.has(parent)).toBe(true);
      }
      // With merging only snapshots with a reason of their own are kept, and each has its parent.
      const merged = new Map(
        decideRetention(
          all.map((item) => ({ ...item, mergeable: !item.damaged })),
          rules,
          LATER,
        ).map((item) => [item.name, item]),
      );
      for (const { name, parents } of all) {
        const { keep, into } = merged.get(name)!;
        if (keep) expect(stay.has(name)).toBe(true);
        for (const heir of into) expect(merged.get(heir)!.keep).toBe(true);
        const heirs = keep ? [name] : into;
        for (const parent of parents)
          if (!merged.get(parent)!.keep)
            expect(merged.get(parent)!.into).toEqual(expect.arrayContaining(heirs));
      }
      // A larger count never keeps fewer.
      for (const period of PERIODS) {
        const more = new Set(kept(all, { ...rules, [period]: rules[period]! + 1 }));
        expect([...stay].filter((name) => !more.has(name))).toEqual([]);
      }
      // The order does not matter, and a second run changes nothing.
      expect(kept(all.toReversed(), rules)).toEqual(kept(all, rules));
      const rest = all.filter(({ name }) => stay.has(name));
      for (const period of PERIODS) {
        const alone = { [period]: rules[period]! };
        const once = rest.filter(({ name }) => kept(rest, alone).includes(name));
        expect(kept(once, alone)).toEqual(once.toSorted(byAge).map(({ name }) => name));
      }
    }
  });
});
