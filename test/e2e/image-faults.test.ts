/** Faults in qcow2 snapshots, in prune and merge: a sample; `scripts/soak images` runs longer. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ImageLab, sweepBits, sweepFull, sweepKills } from "./image-faults.ts";
import { expectError, isTurn, names, rootTest, seed, suiteInTurn, testInTurn } from "./tools.ts";

suiteInTurn(1)("faults in qcow2 snapshots", () => {
  let lab: ImageLab;
  const wrong: string[] = [];
  let points = 0;
  const point = (name: string, violations: readonly string[]): void => {
    points++;
    wrong.push(...violations.map((text) => `VM_TEST_SEED=${seed} ${name}: ${text}`));
  };
  beforeAll(async () => {
    lab = await ImageLab.make(24);
  });
  afterAll(() => lab?.[Symbol.dispose]());

  testInTurn(1, 8)("kill -9 at moments of backup, restore, merge and prune", async () => {
    await sweepKills({ lab, seed, point }, 1);
    expect(wrong).toEqual([]);
    expect(points).toBe(7);
  });

  if (isTurn(1, 8))
    rootTest("a disk that is full half-way", async () => {
      await sweepFull({ lab, seed, point }, 1);
      expect(wrong).toEqual([]);
    });

  test("one flipped bit, and a truncated file: verify detects each", async () => {
    await sweepBits({ lab, seed, point }, 2);
    expect(wrong).toEqual([]);
  });

  test("reports a missing parent, and the rest is usable", async () => {
    lab.load();
    const { box } = lab;
    renameSync(box.path("backups/A"), join(box.top, "A"));
    const verified = await box.vm(["verify", "--all"]);
    expect(verified.status).toBe(74);
    expect(verified.stdout + verified.stderr).toMatch(/2 of 4 snapshots are bad: B, C/);
    expectError(await box.vm(["restore", "C"]), 74, /"A" is missing/);
    await box.ok(["@restore", "P", "@backup"]);
    renameSync(join(box.top, "A"), box.path("backups/A"));
    await box.ok(["restore", "C"]);
  });

  test("a clock set back does not affect names, LAST and pruning", async () => {
    lab.load();
    const { box } = lab;
    await box.ok(["backup", "future"]);
    const path = box.path("backups/future/manifest.json");
    const text = await Bun.file(path).text();
    rmSync(path);
    await Bun.write(path, text.replace(/"made": "20\d\d/, '"made": "2999'));
    const sums = Bun.spawnSync(
      ["sh", "-c", "chmod 600 SHA256SUMS; sha256sum $(awk '{print $2}' SHA256SUMS) >S && mv S SHA256SUMS"],
      {
        cwd: box.path("backups/future"),
      },
    );
    expect(sums.exitCode).toBe(0);
    // Now it is "earlier" than that.
    await box.ok(["backup", "now"]);
    const { stdout } = await box.ok(["snapshots", "--json"]);
    const all = JSON.parse(stdout) as { name: string; last: boolean; problem: unknown }[];
    expect(all.map(({ name }) => name).slice(-2)).toEqual(["now", "future"]);
    expect(all.filter(({ last }) => last).map(({ name }) => name)).toEqual(["now"]);
    expect(all.filter(({ problem }) => problem !== null)).toEqual([]);
    await box.ok(["prune", "--keep-last=1"]);
    expect(names(box.path("backups"))).toContain("now");
    await box.ok(["verify", "--all"]);
  });

  test("two backups at once, and one during a restore: one waits or reports busy, none is damaged", async () => {
    lab.load();
    const { box } = lab;
    const results = await Promise.all([
      box.vm(["backup", "x", "--full", "--lock-timeout=60"]),
      box.vm(["backup", "y", "--lock-timeout=60"]),
      box.vm(["restore", "B", "--copy"]),
    ]);
    for (const { status, stderr } of results) expect(`${status} ${stderr}`).toMatch(/^(0|75) /);
    expect(results.slice(0, 2).map(({ status }) => status)).toEqual([0, 0]);
    expect((await box.ok(["verify", "--all", "--deep"])).stdout).not.toContain("BAD");
    for (const name of ["x", "y"])
      expect([lab.work, lab.known.B!]).toContain(await lab.contentOfSnapshot(name));
  });
});
