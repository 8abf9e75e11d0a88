/** The repository read in place, by the installed restic. */
import { afterEach, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { exec, findProgram, start } from "../../src/process/exec.ts";
import { findFusermount, listFuseMounts, parseFuseMounts, unmountFuse } from "../../src/process/mounts.ts";
import { VmError } from "../../src/lib/errors.ts";
import { keepRepository } from "../../src/snapshot/remote/keeper.ts";
import { mountRepository, requireFuse, requireReadable } from "../../src/snapshot/remote/mount.ts";
import { requireValidRemote } from "../../src/snapshot/remote/fetch.ts";
import { explainDamage, type Repository } from "../../src/snapshot/remote/restic.ts";
import { makeTemporary } from "../../src/store/temporary.ts";
import { recoverWork } from "../../src/store/recover.ts";
import { initRepository } from "../fixtures/restic-repository.ts";
import { Temp } from "../fixtures/temp.ts";

const canMount = Boolean(findProgram("restic") && findFusermount() && existsSync("/dev/fuse"));
const fuseTest = canMount ? test : test.skip;
const PATH = process.env.PATH;
afterEach(() => (process.env.PATH = PATH));

/** A repository with one snapshot `S0` of these files. @returns it, and restic's id */
async function makeRepository(
  top: string,
  files: Record<string, string>,
): Promise<{ repository: Repository; id: string }> {
  writeFileSync(join(top, "password"), "correct horse", { mode: 0o600 });
  const env = {
    RESTIC_REPOSITORY: join(top, "repo"),
    RESTIC_PASSWORD_FILE: join(top, "password"),
    RESTIC_CACHE_DIR: join(top, "cache"),
  };
  const run: Repository["run"] = (words, { what, cwd = "/" }) =>
    exec(["restic", ...words], { env, what, cwd });
  const repository: Repository = {
    run,
    env,
    pastStaleLocks: (attempt) => attempt(),
    start: (words, options) => start(["restic", ...words], { ...options, env }),
    failure: (what, { stderr }) => new VmError("io", `${what}: ${stderr}`),
    damage: (what, logged) => explainDamage(what, logged, join(top, "repo")),
  };
  initRepository(env.RESTIC_REPOSITORY, env.RESTIC_PASSWORD_FILE);
  const backups = join(top, "backups");
  mkdirSync(join(backups, "S0"), { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(backups, "S0", name), text);
  const { stdout } = await run(["backup", "--json", "--tag", "vm", "--", "S0"], {
    what: "backup",
    cwd: backups,
  });
  const id = /"snapshot_id":"(\w+)"/.exec(stdout)![1]!;
  const all = JSON.parse((await run(["snapshots", "--json"], { what: "list" })).stdout) as { id: string }[];
  return { repository, id: all.find((item) => item.id.startsWith(id))!.id };
}

fuseTest("shows a snapshot's files without fetching them, and leaves nothing mounted", async () => {
  using top = new Temp();
  const { repository, id } = await makeRepository(top.top, { "guest.env": "MEMORY=64M\n" });
  using temporary = makeTemporary("/vm", top.top);
  const mounted = await mountRepository(repository, temporary.dir);
  const root = join(mounted.point, id);
  expect(readdirSync(mounted.point)).toEqual([id]);
  expect(requireValidRemote(root, "S0")).toEqual(["S0"]);
  expect(readFileSync(join(root, "S0/guest.env"), "utf8")).toBe("MEMORY=64M\n");
  await mounted.end();
  expect(listFuseMounts(temporary.dir)).toEqual([]);
  expect(() => process.kill(mounted.pid, 0)).toThrow();
});

fuseTest("the next command unmounts and removes what a killed one has left, nothing in use", async () => {
  using top = new Temp();
  const { repository } = await makeRepository(top.top, { "guest.env": "" });
  const hostdir = top.directory("vm");
  using used = makeTemporary(hostdir, top.top);
  const left = used.dir.replace(/.{8}\.temporary$/, "00000000.temporary");
  mkdirSync(left, { mode: 0o700 });
  const mounted = await mountRepository(repository, left);
  process.kill(mounted.pid, "SIGKILL");
  symlinkSync(hostdir, join(left, ".host"));
  recoverWork(hostdir, [top.top]);
  expect(existsSync(left)).toBe(false);
  expect(listFuseMounts(top.top)).toEqual([]);
  expect(existsSync(used.dir)).toBe(true);
});

fuseTest("the process that serves disks ends if its starter was killed before it began", async () => {
  using top = new Temp();
  const { repository } = await makeRepository(top.top, { "guest.env": "" });
  const { dir } = makeTemporary("/vm", top.top);
  const before = { ...process.env };
  Object.assign(process.env, repository.env);
  try {
    await keepRepository(dir, top.directory("vm"), "0");
  } finally {
    process.env = before;
  }
  expect([existsSync(dir), listFuseMounts(top.top)]).toEqual([false, []]);
});

fuseTest("restic's failure is the error, and nothing is mounted", async () => {
  using top = new Temp();
  const { repository } = await makeRepository(top.top, {});
  writeFileSync(join(top.top, "password"), "wrong");
  using temporary = makeTemporary("/vm", top.top);
  expect(mountRepository(repository, temporary.dir)).rejects.toThrow(/wrong password/);
});

fuseTest(
  "lost data of the repository ends in an error that names it, within seconds",
  async () => {
    using top = new Temp();
    const { repository, id } = await makeRepository(top.top, { "guest.env": "MEMORY=64M\n" });
    using temporary = makeTemporary("/vm", top.top);
    renameSync(join(top.top, "repo/data"), join(top.top, "data"));
    const mounted = await mountRepository(repository, temporary.dir);
    const started = performance.now();
    try {
      await expect(requireReadable(repository, mounted, join(mounted.point, id))).rejects.toThrow(
        /data of the repository \S+\/repo is missing or damaged/,
      );
    } finally {
      await mounted.end();
    }
    expect(performance.now() - started).toBeLessThan(40_000);
  },
  60_000,
);

test("without FUSE the error has a reason that callers can decide by", () => {
  process.env.PATH = "/nowhere";
  expect(() => requireFuse()).toThrow(
    expect.objectContaining({ reason: "no-fuse", code: "unavailable", hint: "install fuse3" }),
  );
});

const line = (point: string, type: string): string => `36 35 98:0 / ${point} rw,noatime - ${type} restic rw`;

test("finds FUSE mounts at and below a directory, deepest first", () => {
  const text = [
    line("/tmp/a", "fuse"),
    line("/tmp/a/b\\040c", "fuse.restic"),
    line("/tmp/ab", "fuse"),
    line("/tmp/a/proc", "proc"),
    line("/tmp/a/control", "fusectl"),
  ].join("\n");
  expect(parseFuseMounts(text, "/tmp/a")).toEqual(["/tmp/a/b c", "/tmp/a"]);
  expect(parseFuseMounts(text, "/tmp/a/b c")).toEqual(["/tmp/a/b c"]);
  expect(unmountFuse("/nowhere")).toBe(false);
});
