/** Snapshots in a restic repository: on a path, and on `rclone serve restic`. */
import { afterEach, expect, test } from "bun:test";
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { hasExited } from "../fixtures/has-exited.ts";
import { initRepository } from "../fixtures/restic-repository.ts";
import { until, type Sandbox } from "./harness.ts";
import { content, DISK, filled, manifest, run, write } from "./images.ts";
import { configure, expectError, freePort, mode, names, suite, testInTurn } from "./tools.ts";

let server: ReturnType<typeof Bun.spawn> | undefined;
afterEach(async () => {
  server?.kill();
  await server?.exited;
  server = undefined;
});

const PASSWORD = "correct horse";

/** restic's environment besides the program's own settings. */
const resticEnv = (box: Sandbox) => ({ ...process.env, RESTIC_PASSWORD_FILE: join(box.home, "password") });

async function restic(box: Sandbox, repository: string, ...words: string[]): Promise<string> {
  const child = Bun.spawn(["restic", ...words], {
    env: { ...resticEnv(box), RESTIC_REPOSITORY: repository, HOME: box.home },
    stderr: "pipe",
  });
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  if ((await child.exited) !== 0) throw new Error(`restic ${words.join(" ")}: ${stderr}`);
  return stdout;
}

/** A VM with a new restic repository. */
async function withRepository(repository?: string): Promise<{ box: Sandbox; repository: string }> {
  const box = await filled();
  const place = repository ?? join(box.top, "repo, with space");
  setUp(box, place);
  initRepository(place, join(box.home, "password"));
  return { box, repository: place };
}

function setUp(box: Sandbox, place: string): void {
  writeFileSync(join(box.home, "password"), PASSWORD, { mode: 0o600 });
  configure(
    box,
    `MEMORY=64M\nPORT=\nDISKS=(VIRT=64M)\nSNAPSHOT_FORMAT=qcow2\nSNAPSHOT_REPO='${place}'\nSNAPSHOT_PASSWORD_FILE='${box.home}/password'\n`,
  );
}

const remote = async (box: Sandbox, cwd = box.host) =>
  JSON.parse((await box.ok(["snapshots", "--remote", "--json"], { cwd })).stdout) as {
    id: string;
    name: string;
  }[];

/** Another host: an empty directory of the same name. */
function elsewhere(box: Sandbox): string {
  const host = join(box.top, "elsewhere", "vm1");
  mkdirSync(host, { recursive: true, mode: 0o700 });
  return host;
}

suite(
  "remote snapshots",
  () => {
    test("a pushed snapshot is restored on another host, with all its parents", async () => {
      const { box, repository } = await withRepository();
      using _box = box;
      await box.ok(["backup", "base", "--push"]);
      await write(box, "write -P 2 8M 4M");
      const was = await content(box);
      const pushed = await box.ok(["backup", "--push"]);
      // The parent has been pushed already.
      expect(pushed.stderr).toMatch(/pushed S0 to the repository: \d+ (Ki)?B added/);
      expect(manifest(box, "S0").parent).toBe("base");
      expect((await box.ok(["snapshots", "push", "S0"])).stderr).toContain("already");
      const list = await remote(box);
      expect(list.map(({ name }) => name)).toEqual(["base", "S0"]);
      expect((await box.ok(["snapshots", "--remote"])).stdout).toContain(list[1]!.id.slice(0, 8));
      expect((await box.ok(["verify", "--remote", "--deep"])).stdout).toMatch(/^good .* 2 snapshots/);

      const cwd = elsewhere(box);
      // The user's records of VMs are per host.
      const there = { cwd, env: { XDG_CACHE_HOME: join(box.top, "elsewhere/cache") } };
      await box.ok(["restore", "--from-remote"], there);
      expect(await content(box, join(cwd, ".work", DISK))).toBe(was);
      expect(names(join(cwd, "backups"))).toEqual(["LAST", "S0", "base"]);
      expect(mode(join(cwd, "backups/S0/disk-0.qcow2"))).toBe("400");
      expect((await box.ok(["verify", "--all", "--deep"], there)).stdout).not.toContain("BAD");
      // Again: existing files are kept; by id, and as a standalone disk.
      await box.ok(["restore", list[0]!.id.slice(0, 8), "--from-remote", "--copy"], there);
      await box.ok(["backup", "--push"], there);
      expect((await remote(box)).map(({ name }) => name)).toEqual(["base", "S0", "S1"]);
      await restic(box, repository, "check", "--read-data");
    });

    testInTurn(1)("by HTTP, with a user and a password that are not visible", async () => {
      const port = await freePort();
      const store = await filled();
      using _store = store;
      const place = `rest:http://me:s3cret@127.0.0.1:${port}/`;
      server = Bun.spawn(
        ["rclone", "serve", "restic", "--addr", `127.0.0.1:${port}`, join(store.top, "served")],
        {
          env: { ...process.env, RCLONE_USER: "me", RCLONE_PASS: "s3cret", HOME: store.home },
          stdout: "ignore",
          stderr: "ignore",
        },
      );
      await until("rclone serves", () =>
        fetch(`http://127.0.0.1:${port}/`).then(
          () => true,
          () => false,
        ),
      );
      setUp(store, place);
      await restic(store, place, "init");
      await store.ok(["backup", "--push", "--format=gz"]);
      const was = await content(store);
      const cwd = elsewhere(store);
      await store.ok(["restore", "--from-remote"], { cwd });
      expect(await content(store, join(cwd, ".work", DISK))).toBe(was);
      server.kill();
      await server.exited;
      const failed = await store.vm(["backup", "--push"]);
      expect(failed.stderr).not.toContain("s3cret");
      expectError(failed, 74, /the snapshot was created, but not pushed|cannot list/);
      expect((await store.ok(["config"])).stdout).not.toContain("s3cret");
    });

    test("refuses to push a damaged snapshot, one with a damaged parent, or another VM's (74)", async () => {
      const { box } = await withRepository();
      using _box = box;
      await box.ok(["@backup", "base", "@backup", "S0"]);
      const path = box.path("backups/base/disk-0.qcow2");
      const whole = readFileSync(path);
      const bytes = Buffer.from(whole);
      bytes[bytes.length - 100]! ^= 1;
      rmSync(path);
      writeFileSync(path, bytes);
      const damaged = /base is damaged: disk-0\.qcow2: its checksum is wrong/;
      for (const words of [
        ["snapshots", "push", "S0"],
        ["backup", "S1", "--push"],
      ])
        expectError(await box.vm(words), 74, damaged);
      writeFileSync(path, whole);
      const env = join(box.work, "guest.env");
      writeFileSync(
        env,
        readFileSync(env, "utf8").replace(/^UUID=.*$/m, 'UUID="01234567-89ab-4def-8123-456789abcdef"'),
      );
      expectError(
        await box.vm(["snapshots", "push", "S0"]),
        74,
        /S0: it is a snapshot of another VM \(UUID /,
      );
      expect(await remote(box)).toEqual([]);
    });

    testInTurn(0)("prune by the rules; keeps protected ones and the newest", async () => {
      const { box } = await withRepository();
      using _box = box;
      await box.ok(["backup", "A"]);
      await box.ok(["snapshots", "protect", "A"]);
      await box.ok(["snapshots", "push", "A"]);
      for (const name of ["B", "C", "D"]) await box.ok(["backup", name, "--push"]);
      const dry = await box.ok(["prune", "--remote", "--keep-last=1", "--dry-run"]);
      expect(dry.stdout).toMatch(/^keep A .*\nremove B\nremove C\nkeep D /);
      expect(await remote(box)).toHaveLength(4);
      await box.ok(["prune", "--remote", "--keep-last=1"]);
      expect((await remote(box)).map(({ name }) => name)).toEqual(["A", "D"]);
      // D's parents are in it.
      const cwd = elsewhere(box);
      await box.ok(["restore", "D", "--from-remote"], { cwd });
      expectError(await box.vm(["prune", "--remote"]), 64, /no retention rules given/);
    });

    testInTurn(1)("reports errors: settings, password, repository, names, and another owner", async () => {
      const { box, repository } = await withRepository();
      using _box = box;
      await box.ok(["backup", "--push"]);
      const password = join(box.home, "password");
      chmodSync(password, 0o644);
      expectError(await box.vm(["snapshots", "--remote"]), 78, /is readable by all users/);
      chmodSync(password, 0o600);
      writeFileSync(password, "wrong");
      expectError(await box.vm(["snapshots", "--remote"]), 78, /wrong password for/);
      // The snapshot exists nevertheless.
      expectError(
        await box.vm(["backup", "--push"]),
        74,
        /the snapshot was created, but not pushed: .* password/,
      );
      writeFileSync(password, PASSWORD);
      expectError(await box.vm(["restore", "X", "--from-remote"]), 66, /no snapshot X/);
      const other = join(box.top, "unknown");
      mkdirSync(other);
      const none = await box.vm(["restore", "--from-remote"], { cwd: other });
      expectError(none, 66, /of a VM called unknown/);
      expect(none.stderr).toContain("vm1");
      expectError(await box.vm(["verify", "--remote", "--all"]), 64, /--remote takes only/);

      // Another snapshot of that name is not overwritten.
      const cwd = elsewhere(box);
      await box.ok(["restore", "--from-remote"], { cwd });
      await box.ok(["snapshots", "rm", "S0", "S1"]);
      await write(box, "write -P 7 1M 1M");
      await box.ok(["backup", "S0"]);
      expectError(
        await box.vm(["restore", "S0", "--from-remote"]),
        73,
        /another snapshot called S0 exists here/,
      );

      // A VM's own settings cannot choose the repository.
      writeFileSync(box.path("guest.env"), "SNAPSHOT_REPO=/srv/other\n");
      configure(box, "MEMORY=64M\nPORT=\nDISKS=(VIRT=64M)\nSNAPSHOT_FORMAT=qcow2\n");
      expectError(await box.vm(["snapshots", "--remote"]), 78, /no repository is set/);
      setUp(box, join(box.top, "nowhere"));
      expectError(await box.vm(["snapshots", "--remote"]), 66, /there is no repository at/);

      // Symlinks in the repository are not followed here.
      setUp(box, repository);
      const evil = join(box.top, "evil", "vm1", "backups", "S9");
      mkdirSync(evil, { recursive: true });
      symlinkSync("/etc/passwd", join(evil, "guest.env"));
      const uuid = (await box.ok(["identity"])).stdout.trim();
      const tags = ["vm", "vm-name=vm1", "vm-snapshot=S9", `vm-uuid=${uuid}`].flatMap((tag) => [
        "--tag",
        tag,
      ]);
      const child = Bun.spawn(["restic", "-r", repository, "backup", ...tags, "S9"], {
        cwd: join(evil, ".."),
        env: { ...resticEnv(box), HOME: box.home },
        stdout: "ignore",
      });
      expect(await child.exited).toBe(0);
      expectError(await box.vm(["restore", "S9", "--from-remote"]), 74, /guest\.env is no regular file/);
      expect(names(box.path("backups"))).toEqual(["LAST", "S0"]);
    });

    testInTurn(0)("killed at any time: nothing partial is here or there, and no lock remains", async () => {
      const { box, repository } = await withRepository();
      using _box = box;
      await box.ok(["backup"]);
      const was = await content(box);
      for (const wait of [150, 500]) {
        const child = box.start(["snapshots", "push", "S0"]);
        await Promise.race([Bun.sleep(wait), child.done]);
        child.kill("SIGKILL");
        await child.done;
      }
      await box.ok(["snapshots", "push", "S0"]);
      expect(await remote(box)).toHaveLength(1);
      const cwd = elsewhere(box);
      for (const wait of [100, 400, 800]) {
        const child = box.start(["restore", "--from-remote"], { cwd });
        await Promise.race([Bun.sleep(wait), child.done]);
        child.kill("SIGKILL");
        await child.done;
      }
      await box.ok(["restore", "--from-remote"], { cwd });
      expect(names(join(cwd, "backups"))).toEqual(["LAST", "S0"]);
      expect(await content(box, join(cwd, ".work", DISK))).toBe(was);
      // The locks of the killed restores are stale, those of check are exclusive.
      await box.ok(["verify", "--remote"]);
      // A stale lock of a restic that is not reaped for a while, as by an init that does so from time to time.
      const parent = Bun.spawn(
        [
          "bash",
          "-c",
          'restic -r "$0" check --read-data >/dev/null 2>&1 & echo $!; exec sleep 3',
          repository,
        ],
        { env: { ...resticEnv(box), HOME: box.home }, stdout: "pipe" },
      );
      const { value } = await parent.stdout.getReader().read();
      const held = Number(new TextDecoder().decode(value));
      await until("it has its lock", () => readdirSync(join(repository, "locks")).length > 0);
      process.kill(held, "SIGKILL");
      await until("it has ended", () => hasExited(held));
      await box.ok(["prune", "--remote", "--keep-last=1"]);
      expect(parent.exitCode ?? (await parent.exited)).toBe(0);
      // Damage is reported.
      const files = (await run(["find", join(repository, "data"), "-type", "f"])).stdout.trim().split("\n");
      // The data, not the trees: restic 0.14 retries those for a minute and a half.
      const data = files.toSorted((a, b) => statSync(b).size - statSync(a).size)[0]!;
      renameSync(data, `${data}x`);
      expectError(await box.vm(["verify", "--remote"]), 74, /the repository is damaged/);
      rmSync(`${data}x`);
    });
  },
  ["restic", "rclone"],
);
