/**
 * Every command that changes a VM: killed, concurrent, without space, on damaged files. A sample;
 * `scripts/soak --only=kills,mix,full,flips` runs longer.
 */
import { afterAll, expect } from "bun:test";
import { copyFileSync, rmSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { AUTOSTART_SCENARIOS, sweepAutostartKills } from "./autostart-faults.ts";
import { EXPORT_SCENARIOS, sweepExportKills } from "./export-faults.ts";
import { FILE_SCENARIOS, sweepFileKills } from "./file-faults.ts";
import { sweepFlips } from "./flip-faults.ts";
import { sweepChanges } from "./changed-machine.ts";
import { binary } from "./harness.ts";
import { HOSTILE_SCENARIOS, sweepHostile } from "./hostile-faults.ts";
import { sweepRandomKills } from "./kill-faults.ts";
import { sweepLiveKills } from "./live-kill-faults.ts";
import { sweepMix } from "./mixed-faults.ts";
import { SoakLabs, type SoakSweep } from "./soak-lab.ts";
import { isTurn, rootTest, sampled, seed, suiteInTurn, testInTurn, turnsOf } from "./tools.ts";

suiteInTurn(1)(
  "a VM survives",
  () => {
    const labs = new SoakLabs();
    afterAll(() => labs[Symbol.asyncDispose]());

    /** Runs a sweep. @returns problems, and the number of points */
    async function collect(run: (sweep: SoakSweep) => Promise<unknown>) {
      const wrong: string[] = [];
      let points = 0;
      await run({
        seed,
        labs,
        wanted: () => true,
        point: (name, violations) => {
          points++;
          wrong.push(...violations.map((text) => `VM_TEST_SEED=${seed} ${name}: ${text}`));
        },
      });
      return { wrong, points };
    }

    testInTurn(2, 4)("the oracle detects lost, mixed, and incomplete data", async () => {
      const lab = await labs.get({ inplace: false });
      await lab.load("whole");
      const { box } = lab;
      expect(await lab.look()).toEqual({
        work: "work",
        snapshots: { P: "P", Q: "Q", A: "A", B: "B", C: "C" },
        last: "C",
      });
      copyFileSync(join(box.work, "disk-0.img"), join(box.work, "disk-1.img"));
      rmSync(box.path("backups/LAST"));
      truncateSync(box.path("backups/P/disk-0.img.gz"), 100);
      rmSync(box.path("backups/A"), { recursive: true });
      const { work, snapshots, last } = await lab.look();
      expect(work).toStartWith("mixed ");
      expect(last).toBeUndefined();
      expect(snapshots.P).toStartWith("damaged: ");
      expect(snapshots.Q).toBe("Q");
      expect(snapshots.A).toBeUndefined();
      // It is A's child.
      expect(snapshots.B).toStartWith("mixed ");
    });

    testInTurn(1, 8)("kill -9 at random times of its commands", async () => {
      const { wrong, points } = await collect((sweep) => sweepRandomKills(sweep, 3));
      expect(wrong).toEqual([]);
      expect(points).toBe(3);
    });

    testInTurn(7, 8)("kill -9 at random times of snapshots while it runs", async () => {
      const { wrong, points } = await collect((sweep) => sweepLiveKills(sweep, 2));
      expect(wrong).toEqual([]);
      expect(points).toBe(3);
    });

    testInTurn(3, 8)("kill -9 at random times of exports and imports", async () => {
      const names = sampled(EXPORT_SCENARIOS, 0, 3, turnsOf(8));
      const wanted = (name: string): boolean => names.includes(name.split(":")[1]!);
      const { wrong, points } = await collect((sweep) => sweepExportKills({ ...sweep, wanted }, 1));
      expect(wrong).toEqual([]);
      expect(points).toBe(names.length);
    });

    testInTurn(5, 8)("kill -9 at random times of getting and restoring files", async () => {
      const names = sampled(FILE_SCENARIOS, 0, 2, turnsOf(8));
      const wanted = (name: string): boolean => names.includes(name.split(":")[1]!);
      const { wrong, points } = await collect((sweep) => sweepFileKills({ ...sweep, wanted }, 1));
      expect(wrong).toEqual([]);
      expect(points).toBe(names.length);
    });

    testInTurn(7, 8)("hostile filesystems in a snapshot harm nothing", async () => {
      const names = sampled(HOSTILE_SCENARIOS, 0, 1, turnsOf(8));
      const wanted = (name: string): boolean => names.includes(name.split(":")[1]!);
      const { wrong, points } = await collect((sweep) => sweepHostile({ ...sweep, wanted }, 1));
      expect(wrong).toEqual([]);
      expect(points).toBe(names.length);
    });

    testInTurn(1, 8)("kill -9 at random times of moving working files, and of autostart", async () => {
      const names = sampled(AUTOSTART_SCENARIOS, 0, 2, turnsOf(8));
      const wanted = (name: string): boolean => names.includes(name.split(":")[1]!);
      const { wrong, points } = await collect((sweep) => sweepAutostartKills({ ...sweep, wanted }, 1));
      expect(wrong).toEqual([]);
      expect(points).toBe(2 * names.length);
    });

    testInTurn(3, 8)("changes at random to its hardware while it runs", async () => {
      const { wrong, points } = await collect((sweep) =>
        sweepChanges(sweep, { changes: 12, each: 6, uefi: isTurn(3, 16) }),
      );
      expect(wrong).toEqual([]);
      expect(points).toBe(12 + 2 + 1 + 2 + 1);
    });

    testInTurn(5, 8)("four commands at once, in a random mix", async () => {
      const { wrong, points } = await collect((sweep) => sweepMix(sweep, { inplace: false }, { seconds: 4 }));
      expect(wrong).toEqual([]);
      expect(points).toBeGreaterThan(2);
    });

    testInTurn(1, 8)(
      "flipped bits and bytes, and truncated files, in snapshots and working directories",
      async () => {
        const { wrong, points } = await collect((sweep) => sweepFlips(sweep, { flips: 5, cuts: 3 }));
        expect(wrong).toEqual([]);
        expect(points).toBe(8);
      },
    );

    // In a mount namespace of its own, so that all mounts disappear.
    if (isTurn(7, 8))
      rootTest("full disks, and disks with I/O errors", async () => {
        const soak = join(import.meta.dir, "../../scripts/lib/soak.ts");
        const only = [
          "full:backup incremental:tmpdir:vm1/backups",
          "full:restore gz:tmpdir:work",
          "full:destroy:tmpdir:calls",
          "export:import pipe:full copies",
          "export:export OVA:full vm1",
          "full:merge:tmpdir:calls",
          "files:restore only:full tmp",
        ]
          // Two of them at each turn.
          .filter((_, index) => isTurn(index % 2 ? 7 : 15, 16))
          .join(",");
        const child = Bun.spawn(
          ["unshare", "--mount", process.execPath, soak, "--quick", `--seed=${seed}`, `--only=${only}`],
          { env: { ...process.env, VM_BINARY: binary }, stdout: "pipe", stderr: "pipe" },
        );
        const [output, errors] = await Promise.all([
          new Response(child.stdout).text(),
          new Response(child.stderr).text(),
          child.exited,
        ]);
        expect(`${output}${errors}`).toMatch(/\n\d+ passed, 0 failed\n$/);
      });
  },
  ["strace", "restic", "qemu-io"],
);
