/** Hostile snapshots from a repository (restore --from-remote), with the checks of trust.test.ts. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { initRepository } from "../fixtures/restic-repository.ts";
import { allVariations, configure, seed, suite } from "./tools.ts";
import { CARRIERS } from "./trust-carriers.ts";
import { random, READING, TrustLab } from "./trust-lab.ts";

/** Size of the sample of carriers within a snapshot. */
const SAMPLE = 2;
// restic does not back up paths beyond the kernel's limit.
const FETCHED = CARRIERS.filter(
  ({ name }) =>
    (name.startsWith("backups/S0/") || /manifest|sums|snapshot|description/.test(name)) &&
    !name.startsWith("a deep tree"),
)
  .toSorted((a, b) => random(a.name)() - random(b.name)())
  .slice(0, allVariations ? Number.POSITIVE_INFINITY : SAMPLE);

suite(
  `hostile snapshots (VM_TEST_SEED=${seed})`,
  () => {
    let lab: TrustLab;
    let host: string;

    const restic = (...words: string[]): string =>
      execFileSync("restic", ["--no-cache", ...words], {
        // Like the program: names relative to HOSTDIR/backups.
        cwd: existsSync(join(host, "backups")) ? join(host, "backups") : "/",
        env: {
          ...process.env,
          HOME: lab.box.home,
          RESTIC_REPOSITORY: join(lab.box.top, "repo"),
          RESTIC_PASSWORD_FILE: join(lab.box.home, "password"),
        },
        stdio: ["ignore", "pipe", "ignore"],
      }).toString();

    beforeAll(async () => {
      lab = new TrustLab();
      writeFileSync(join(lab.box.home, "password"), "correct horse", { mode: 0o600 });
      configure(
        lab.box,
        `SNAPSHOT_REPO='${lab.box.top}/repo'\nSNAPSHOT_PASSWORD_FILE='${lab.box.home}/password'\nPORT=\n`,
      );
      await lab.create();
      host = join(lab.box.top, "origin/hostile");
      mkdirSync(join(lab.box.top, "origin"));
      execFileSync("cp", ["-a", lab.base, host]);
      initRepository(join(lab.box.top, "repo"), join(lab.box.home, "password"));
      // As on another host: here it would be a copy of the first.
      const env = { XDG_CACHE_HOME: join(lab.box.top, "origin-cache") };
      await lab.box.ok(["snapshots", "push", "S0"], { cwd: host, env });
      // Each carrier starts with this one.
      execFileSync("cp", ["-a", join(lab.box.top, "repo"), join(lab.box.top, "repo.clean")]);
    });
    afterAll(() => lab?.[Symbol.dispose]());

    /** Replaces the snapshot in the repository by another content, with the program's tags. */
    function replaceRemote(...more: string[]): void {
      execFileSync("rm", ["-rf", join(lab.box.top, "repo")]);
      cpSync(join(lab.box.top, "repo.clean"), join(lab.box.top, "repo"), { recursive: true });
      const [first] = JSON.parse(restic("snapshots", "--json")) as {
        id: string;
        tags: string[];
      }[];
      const tags = first!.tags.flatMap((tag) => ["--tag", tag]);
      restic("backup", ...tags, "--", "S0", ...more);
      restic("forget", first!.id);
    }

    test.each(FETCHED.map((carrier) => [carrier.name, carrier] as const))(
      "%s",
      async (name, carrier) => {
        execFileSync("rm", ["-rf", host]);
        execFileSync("cp", ["-a", lab.base, host]);
        carrier.put(host, lab.outside);
        if (!existsSync(join(host, "backups/S0"))) return;
        replaceRemote();
        const next = random(name);
        const dir = join(lab.box.home, "vm/hostile");
        execFileSync("rm", ["-rf", join(lab.box.home, "vm")]);
        mkdirSync(dir, { recursive: true, mode: 0o700 });
        const wrong = await lab.tryCommand("restore S0 --from-remote", dir);
        const reading = allVariations ? READING : [READING[Math.floor(next() * READING.length)]!];
        for (const command of ["snapshots --remote", ...reading, "restore", "destroy"])
          wrong.push(...(await lab.tryCommand(command, dir)));
        expect(wrong).toEqual([]);
      },
      allVariations ? 600_000 : 240_000,
    );

    /** An empty directory of the VM's name, and a repository with the VM's S0. */
    function beginAnew(...more: string[]): string {
      const dir = join(lab.box.home, "vm/hostile");
      execFileSync("rm", ["-rf", host, join(lab.box.home, "vm")]);
      execFileSync("cp", ["-a", lab.base, host]);
      for (const name of more)
        cpSync(join(host, "backups/S0"), join(host, "backups", name), { recursive: true });
      replaceRemote(...more);
      mkdirSync(dir, { recursive: true, mode: 0o700 });
      return dir;
    }

    test("restores an honest one", async () => {
      const cwd = beginAnew();
      await lab.box.ok(["restore", "S0", "--from-remote"], { cwd });
      expect((await lab.box.ok(["verify", "S0"], { cwd })).stdout).toContain("S0: good");
    });

    test("further directories in it become no snapshots", async () => {
      const cwd = beginAnew("extra", "S7");
      await lab.box.vm(["restore", "S0", "--from-remote"], { cwd });
      expect((await lab.box.vm(["snapshots"], { cwd })).stdout).not.toMatch(/^(extra|S7) /m);
    });
  },
  ["restic", "mkfifo", "python3"],
);
