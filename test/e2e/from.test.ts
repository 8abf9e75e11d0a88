/** Running straight from a snapshot: `run --from`, local and in a restic repository. */
import { expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { initRepository } from "../fixtures/restic-repository.ts";
import { buildCountGuest, FAR_SECTOR, readCounts } from "../guests/count.ts";
import { Sandbox, until, type Running } from "./harness.ts";
import { run } from "./images.ts";
import { configure, expectError, names, sha256, suite, untilQuiet } from "./tools.ts";

const DISK = "disk-0.img";
const FAR = FAR_SECTOR * 512;

/** A VM with the counting guest, whose far sector says `a1a1a1a1`, and a repository. */
async function counting(settings = "SNAPSHOT_FORMAT=qcow2"): Promise<Sandbox> {
  const box = new Sandbox();
  const repository = join(box.top, "repo");
  writeFileSync(join(box.home, "password"), "correct horse", { mode: 0o600 });
  configure(
    box,
    `MEMORY=64M\nCORES=1\nPORT=\nDISKS=(AHCI=16M)\nSHARES=()\n${settings}\nSNAPSHOT_REPO=${repository}\nSNAPSHOT_PASSWORD_FILE=${box.home}/password\n`,
  );
  await box.ok(["create", "G"]);
  rmSync(join(box.work, "FIRSTTIME"), { force: true });
  const sector = join(box.top, "sector");
  writeFileSync(sector, await buildCountGuest());
  await io(box, `write -q -s ${sector} 0 512`, `write -q -P 0xa1 ${FAR} 512`);
  return box;
}

const io = (box: Sandbox, ...commands: string[]) =>
  run(["qemu-io", "-f", "qcow2", ...commands.flatMap((one) => ["-c", one]), join(box.work, DISK)]);

/** The directory of the throw-away machine, once it has one. */
const lookDirectory = (box: Sandbox): string | undefined =>
  readdirSync(box.tmp)
    .filter((name) => name.endsWith(".temporary"))
    .map((name) => join(box.tmp, name, "work"))
    .find((path) => existsSync(path));

const countsIn = (dir: string | undefined) =>
  dir !== undefined && existsSync(join(dir, "console.log"))
    ? readCounts(readFileSync(join(dir, "console.log"), "utf8"))
    : [];

async function type(dir: string, text: string): Promise<void> {
  const socket = await Bun.connect({ unix: join(dir, "console.sock"), socket: { data: () => {} } });
  socket.write(text);
  socket.flush();
  socket.end();
}

/** Starts a look, and waits for what the guest says first. */
async function look(box: Sandbox, ...words: string[]): Promise<{ running: Running; dir: string }> {
  const running = box.start(["run", ...words]);
  let over = false;
  void running.done.then(() => (over = true));
  await until("the guest of the snapshot", () => {
    if (over) throw new Error(`it has ended: ${running.stderr()}`);
    return countsIn(lookDirectory(box)).length > 0;
  });
  return { running, dir: lookDirectory(box)! };
}

suite(
  "run --from",
  () => {
    test("boots a snapshot while the VM runs, keeps nothing, and is removed with it", async () => {
      using box = await counting();
      await box.ok(["backup", "S0"]);
      await io(box, `write -q -P 0xb2 ${FAR} 512`);
      await box.ok(["run", "--detach"]);
      await until("the VM's own guest", () => countsIn(box.work).length > 0);
      expect(countsIn(box.work)[0]!.far).toBe("b2b2b2b2");
      const image = box.path("backups/S0/disk-0.qcow2");
      const was = sha256(image);
      const { running, dir } = await look(box, "--from=S0");
      expect(countsIn(dir)).toEqual([{ count: 0, far: "a1a1a1a1" }]);
      await type(dir, "w");
      await until("its write", () => countsIn(dir).length > 1);
      expect(countsIn(dir)[1]!.count).toBe(1);
      // What the snapshot holds may go meanwhile, and other commands leave the look alone.
      await box.ok(["backup", "S1"]);
      await box.ok(["snapshots", "rm", "--merge", "S0"]);
      expect(existsSync(dir)).toBe(true);
      await type(dir, "q");
      const done = await running.done;
      expect({ status: done.status, stderr: done.stderr }).toEqual({
        status: 0,
        stderr: expect.stringContaining("nothing of this run of S0 is kept"),
      });
      expect(readdirSync(box.tmp).filter((name) => name.endsWith(".temporary"))).toEqual([]);
      expect(was).not.toBe("");
      expect(JSON.parse((await box.ok(["status", "--json"])).stdout).state).toBe("running");
      await type(box.work, "q");
      await untilQuiet(box);
    });

    test("a gz snapshot is unpacked first; a killed look leaves nothing after the next command", async () => {
      using box = await counting("SNAPSHOT_FORMAT=gz");
      await box.ok(["backup", "S0"]);
      const { running, dir } = await look(box, "--from", "S0");
      expect(countsIn(dir)).toEqual([{ count: 0, far: "a1a1a1a1" }]);
      running.kill("SIGKILL");
      await running.done;
      await untilQuiet(box);
      expect(existsSync(dir)).toBe(true);
      await box.ok(["backup", "S1"]);
      expect(existsSync(dir)).toBe(false);
    });

    test("--from-remote reads the repository in place", async () => {
      using box = await counting();
      initRepository(join(box.top, "repo"), join(box.home, "password"));
      await box.ok(["backup", "S0", "--push"]);
      await box.ok(["snapshots", "rm", "S0"]);
      const { running, dir } = await look(box, "--from-remote");
      expect(countsIn(dir)).toEqual([{ count: 0, far: "a1a1a1a1" }]);
      await type(dir, "q");
      expect((await running.done).status).toBe(0);
      expect(names(box.tmp).filter((name) => name.endsWith(".temporary"))).toEqual([]);
      expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(box.top);
      expectError(await box.vm(["run", "--from=S7", "--from-remote"]), 66, /has no snapshot S7/);
    });

    test("words that make no sense with it are refused", async () => {
      using box = await counting();
      expectError(await box.vm(["run", "--from=S0", "--detach"]), 64, /take no --detach/);
      expectError(await box.vm(["run", "--from=S0"]), 66, /S0/);
    });
  },
  ["restic", "fusermount3"],
);
