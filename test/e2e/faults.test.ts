/**
 * Faults, the sample for every check: kills, failing system calls, full disks, forged `.work` symlinks, concurrent
 * commands. `scripts/soak` runs longer.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
} from "node:fs";
import { realpathSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Lab, seededRandom } from "./faults-lab.ts";
import { ALL_VARIANTS, raceBackups, sweepCalls, sweepMoments, type Tally } from "./faults-sweeps.ts";
import { binary } from "./harness.ts";
import { expectError, isRoot, isTurn, rootTest, seed, smallSandbox, testInTurn, turnsOf } from "./tools.ts";

/** Runs a sweep. @returns violations and the number of points */
async function collect(
  sweep: (
    options: { seed: number; report: (point: string, violation: string) => void },
    line: (title: string, tally: Tally) => void,
  ) => Promise<void>,
): Promise<{ wrong: string[]; points: number }> {
  const wrong: string[] = [];
  let points = 0;
  const report = (point: string, violation: string): void => void wrong.push(`${point}: ${violation}`);
  await sweep({ seed, report }, (_title, tally) => (points += tally.points));
  if (wrong.length > 0) console.log(`VM_TEST_SEED=${seed}`);
  return { wrong, points };
}

// In a mount namespace of its own, so that all mounts disappear.
const own = isRoot ? ["unshare", "--mount"] : ["unshare", "--user", "--map-root-user", "--mount"];
const mountable = Bun.spawnSync([...own, "mount", "-t", "tmpfs", "none", "/mnt"]).exitCode === 0;

describe("a fault leaves everything intact", () => {
  testInTurn(0)("kill -9 at 8 moments of backup and restore", async () => {
    const { wrong, points } = await collect((options, line) =>
      sweepMoments({ ...options, kills: 4, megabytes: 20 }, ["SIGKILL"], line),
    );
    expect(wrong).toEqual([]);
    expect(points).toBe(8);
  });

  test("SIGTERM, SIGINT and SIGHUP at times of backup and restore", async () => {
    const { wrong } = await collect((options, line) =>
      sweepMoments({ ...options, kills: 1, megabytes: 20 }, ["SIGTERM", "SIGINT", "SIGHUP"], line),
    );
    expect(wrong).toEqual([]);
  });

  // Between the symlinks and their mark.
  test.each(["backup", "destroy", "run"])("%s completes an interrupted in-place change", async (command) => {
    using box = smallSandbox();
    await box.ok(["--inplace", "create", "G"]);
    mkdirSync(box.path(".vm-ready"), { mode: 0o700 });
    renameSync(box.path(".vm.json"), box.path(".vm-ready/.vm.json"));
    expect((await box.vm(["status"])).stdout).toContain("an interrupted command");
    const { stderr } = await box.vm(["--image=VIRT=/nowhere", command]);
    expect(stderr).toMatch(command === "run" ? /no such disk image/ : /^(snapshot S0|destroyed)/m);
    expect(readdirSync(box.host)).not.toContain(".vm-ready");
  });

  testInTurn(5, 8)("KILL, ENOSPC and EIO in system calls of 24 kinds", async () => {
    const { wrong, points } = await collect((options, line) =>
      sweepCalls(
        { ...options, limit: 1, groups: 24, variants: [ALL_VARIANTS[turnsOf(8) % 2]!], workers: 2 },
        line,
      ),
    );
    expect(wrong).toEqual([]);
    expect(points).toBeGreaterThan(10);
  });

  if (isTurn(0))
    (mountable || process.env.CI === "true" ? test : test.skip)(
      "a full disk during backup and restore",
      async () => {
        const soak = join(import.meta.dir, "../../scripts/lib/soak.ts");
        const only = `--only=${(seed >> 1) % 2 === 0 ? "full:backup-first" : "full:restore:bios+inplace"},full:restore:bios:tmp`;
        const child = Bun.spawn([...own, process.execPath, soak, "--quick", `--seed=${seed}`, only], {
          env: { ...process.env, VM_BINARY: binary },
          stdout: "pipe",
          stderr: "pipe",
        });
        const [output, errors] = await Promise.all([
          new Response(child.stdout).text(),
          new Response(child.stderr).text(),
          child.exited,
        ]);
        expect(`${output}${errors}`).toMatch(/\n\d+ passed, 0 failed\n$/);
      },
    );
});

test("concurrent backups run one after the other, or are refused", async () => {
  const { wrong } = await collect((options, line) => raceBackups({ ...options, rounds: 3 }, line));
  expect(wrong).toEqual([]);
});

/** All metadata and contents of every file below a directory. */
function census(directory: string, deep = true): string[] {
  const all: string[] = [];
  const visit = (path: string): void => {
    const { mode, uid, size, mtimeMs, ino } = lstatSync(path);
    const kind = mode & 0o170000;
    const content =
      kind === 0o120000 ? readlinkSync(path) : kind === 0o100000 && deep ? Bun.hash(readFileSync(path)) : "";
    all.push(
      `${path} ${mode.toString(8)} ${uid} ${ino} ${kind === 0o040000 ? "" : `${size} ${mtimeMs}`} ${content}`,
    );
    if (kind !== 0o040000) return;
    // `.local`: the history of events.
    for (const name of readdirSync(path).toSorted()) if (name !== ".local") visit(join(path, name));
  };
  visit(directory);
  return all;
}

describe("working files", () => {
  let lab: Lab;
  beforeAll(async () => {
    lab = await Lab.make({ inplace: false, uefi: false }, 1);
  });
  afterAll(() => lab[Symbol.dispose]());

  (mountable || process.env.CI === "true" ? test : test.skip)(
    "stay whole if the symlink to them cannot be removed",
    async () => {
      using box = smallSandbox();
      await box.ok(["create", "G"]);
      const before = readdirSync(realpathSync(box.path(".work")));
      const script = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; shift; exec "$@"';
      expectError(
        await box.vm(["destroy"], {
          program: [...own, "sh", "-ec", script, "sh", box.host, binary],
        }),
        73,
        /cannot destroy the working files: .*read-only/i,
      );
      expect(readdirSync(realpathSync(box.path(".work")))).toEqual(before);
    },
  );

  /** Replaces `.work`. */
  const pointTo = (target: string): void => {
    rmSync(lab.box.path(".work"));
    symlinkSync(target, lab.box.path(".work"));
  };
  /** A directory that imitates working files, of another user who can read the VM's. */
  const forge = (): string => {
    const dir = `${lab.box.work}ff`;
    Bun.spawnSync(["cp", "-a", lab.box.work, dir]);
    return dir;
  };
  const giveAway = (path: string): void => {
    if (!lstatSync(path).isSymbolicLink() && lstatSync(path).isDirectory())
      for (const name of readdirSync(path)) giveAway(join(path, name));
    lchownSync(path, 65_534, 65_534);
  };

  /** A forged `.work`. @returns the directory to start the program in, if not HOSTDIR */
  const LIES: Record<string, { asRoot?: true; tell: () => string | void }> = {
    "its target belongs to another user": { asRoot: true, tell: () => giveAway(lab.box.work) },
    "it belongs to another user": {
      asRoot: true,
      tell: () => lchownSync(lab.box.path(".work"), 65_534, 65_534),
    },
    "another user recreated the directory": {
      asRoot: true,
      tell: () => {
        const dir = forge();
        const { work } = lab.box;
        rmSync(work, { recursive: true });
        renameSync(dir, work);
        giveAway(work);
      },
    },
    "only its .host belongs to another user": {
      asRoot: true,
      tell: () => lchownSync(join(lab.box.work, ".host"), 65_534, 65_534),
    },
    "other users can write to the target": { tell: () => chmodSync(lab.box.work, 0o777) },
    "it points to another symlink": {
      tell: () => {
        const between = join(lab.box.tmp, "between");
        symlinkSync(lab.box.work, between);
        pointTo(between);
      },
    },
    "it points to another user's through several symlinks": {
      asRoot: true,
      tell: () => {
        const dir = forge();
        giveAway(dir);
        const links = ["l1", "l2"].map((name) => join(lab.box.tmp, name));
        symlinkSync(dir, links[0]!);
        symlinkSync("l1", links[1]!);
        pointTo(links[1]!);
      },
    },
    "it points to /etc": { tell: () => pointTo("/etc") },
    "it points to a directory of this user that is not the program's": {
      tell: () => {
        const dir = join(lab.box.tmp, "letters");
        mkdirSync(dir);
        writeFileSync(join(dir, "disk-0.img"), "dear all");
        pointTo(dir);
      },
    },
    "the target names another VM": {
      tell: () => {
        const link = join(lab.box.work, ".host");
        rmSync(link);
        symlinkSync("/etc", link);
      },
    },
    "the target has no mark": { tell: () => rmSync(join(lab.box.work, ".vm.json")) },
    "it is a directory": {
      tell: () => {
        rmSync(lab.box.path(".work"));
        mkdirSync(lab.box.path(".work"));
        lab.box.write(".work/disk-0.img", "dear all");
      },
    },
    "the VM's directory is a copy": {
      tell: () => {
        const copy = join(lab.box.top, "copy");
        Bun.spawnSync(["cp", "-a", lab.box.host, copy]);
        return copy;
      },
    },
    "the VM's directory was moved, and another one is in its place": {
      tell: () => {
        const moved = join(lab.box.top, "moved");
        renameSync(lab.box.host, moved);
        mkdirSync(lab.box.host);
        return moved;
      },
    },
  };
  const COMMANDS = [
    ["destroy"],
    ["destroy", "--force"],
    ["backup"],
    ["run"],
    ["restore", "S0"],
    ["create", "G"],
  ];

  for (const [lie, { asRoot, tell }] of Object.entries(LIES))
    (asRoot ? rootTest : test)(`are not believed: ${lie}`, async () => {
      lab.load("changed");
      const cwd = tell() ?? lab.box.host;
      const etc = census("/etc", false);
      const before = census(lab.box.top);
      // All of them for the most important case; else three, so that each is combined with each forgery.
      const at = Object.keys(LIES).indexOf(lie);
      const tried =
        lie === "it points to /etc" ? COMMANDS : COMMANDS.filter((_, index) => (index + at) % 2 === 0);
      for (const command of tried) {
        const { status, stderr } = await lab.box.vm(lab.args(command), { cwd });
        expect(`${command.join(" ")}: ${status} ${stderr}`).toMatch(/: 74 [^]*cannot use /);
        expect(census(lab.box.top)).toEqual(before);
      }
      expect(census("/etc", false)).toEqual(etc);
      expect(lab.processes()).toEqual([]);
    });

  // In a shared /tmp every user can take the names that the program would use.
  const SQUATS = [".discarded", ".partial", ""];
  for (const [at, command] of [["backup"], ["restore"], ["destroy"]].entries())
    for (const ending of [SQUATS[(at + seed) % SQUATS.length]!])
      rootTest(`${command[0]} bears with another user's directory NAME${ending || "00"}`, async () => {
        lab.load("changed");
        const { work } = lab.box;
        chmodSync(lab.box.tmp, 0o1777);
        const squat = ending ? `${work}${ending}` : `${work.slice(0, -8)}00000000`;
        Bun.spawnSync(["cp", "-a", work, squat]);
        giveAway(squat);
        const link = `${work.slice(0, -8)}11111111.discarded`;
        symlinkSync(squat, link);
        const before = census(squat);
        const result = await lab.vm(command);
        expect(census(squat)).toEqual(before);
        expect(lstatSync(link).isSymbolicLink()).toBe(true);
        expect(result.stderr).not.toContain("internal error");
        // With or without success: nothing is lost, and the VM keeps working.
        if (command[0] === "backup") expect(lab.work()).toBe("B");
        for (const next of [["restore", "S0"], ["backup"], ["destroy"]]) {
          const { status, stderr } = await lab.vm(next);
          expect(`${next[0]} ${status} ${stderr}`).toStartWith(`${next[0]} 0 `);
        }
        expect(census(squat)).toEqual(before);
      });

  test("reports a dangling .work, and the VM can be restored", async () => {
    lab.load("changed");
    const random = seededRandom(seed);
    pointTo(join(lab.box.tmp, `vm-gone-${random()}`));
    const backup = await lab.vm(["backup"]);
    expect(backup.status).toBe(66);
    await lab.ok(["restore"]);
    expect(lab.work()).toBe("A");
  });
});
