/** Snapshots of a running VM: one point in time of all disks, a guest that keeps running, and a clean qemu. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { GuestAgent } from "../../src/qmp/agent.ts";
import { QmpClient } from "../../src/qmp/client.ts";
import { guests, until, type Running } from "./harness.ts";
import { isCopy } from "./images.ts";
import {
  allVariations,
  configure,
  expectError,
  names,
  rootTest,
  shell,
  smallSandbox,
  suite,
  testInTurn,
} from "./tools.ts";

/** qemu-ga of this host with its libraries. */
const PACK = `
PATH=$PATH:/usr/sbin:/sbin
mkdir -p root/usr/sbin
path=$(command -v qemu-ga)
cp -L "$path" root/usr/sbin/
ldd "$path" | grep -o '/[^ ]*' | xargs -I{} cp -L --parents {} root/
tar -C root --owner=0 --group=0 -cf root.tar .
rm -r root
`;

/**
 * Writes numbered records to one disk, then to the other, and syncs each; prints the time; has a filesystem on the
 * third disk that is written to.
 */
const GUEST = `
tar -C / -xf /in/root.tar
export PATH=$PATH:/usr/sbin
mkdir -p /fs /run
mount -t ext4 /dev/nvme0n1 /fs
qemu-ga -d -m virtio-serial -p /dev/$(ls /sys/class/virtio-ports) -t /run -f /run/ga.pid
(while :; do echo tick $(cut -d' ' -f1 /proc/uptime); usleep 20000; done) &
(while :; do date >/fs/file; done) &
n=0
while :; do
  n=$((n+1))
  printf 'REC %08d' $n >/tmp/record
  for disk in /dev/vda /dev/sda; do
    dd if=/tmp/record of=$disk bs=512 seek=$n conv=sync,notrunc,fsync 2>/dev/null
  done
done
`;

/** Counts the consecutive records of a raw disk, from the second sector on; none may follow them. */
function countRecords(path: string): number {
  const bytes = readFileSync(path);
  const at = (n: number): string => bytes.toString("latin1", n * 512, n * 512 + 12);
  let count = 0;
  while (at(count + 1) === `REC ${String(count + 1).padStart(8, "0")}`) count++;
  for (let n = count + 1; n < count + 1000; n++) expect(at(n).startsWith("REC")).toBe(false);
  return count;
}

suite(
  "a snapshot of a running VM",
  () => {
    const box = smallSandbox(`a "live", one: №1`);

    const ticks = (): number => box.console().match(/^tick/gm)?.length ?? 0;
    /** The guest's programs keep running. */
    async function expectTicking(): Promise<void> {
      const before = ticks();
      await until("the guest going on", () => ticks() > before + 2);
    }
    async function qmp<T>(use: (client: QmpClient) => Promise<T>): Promise<T> {
      const client = await QmpClient.connect(join(box.work, "qmp.sock"), 10_000);
      try {
        return await use(client);
      } finally {
        client.close();
      }
    }
    /** The point in time is set, and its copy has started. */
    async function untilCopying(running: Running): Promise<void> {
      let over = false;
      void running.done.then(() => (over = true));
      await until("the copy", async () => {
        if (over) throw new Error(`ended too early: ${running.stderr()}`);
        return qmp(async (client) => (await client.execute("query-jobs")).some(isCopy));
      });
    }
    /** The guest's qemu has no nodes of the backup, and there are no hidden snapshots. */
    async function expectClean(): Promise<void> {
      const { nodes, jobs, drives } = await qmp(async (client) => ({
        nodes: await client.execute("query-named-block-nodes", { flat: true }),
        jobs: await client.execute("query-jobs"),
        drives: (await client.executeUntyped("query-block")) as { inserted?: { "node-name": string } }[],
      }));
      expect(nodes.map((node) => node["node-name"]).filter((name) => name?.startsWith("vm-"))).toEqual([]);
      expect(jobs).toEqual([]);
      expect(
        drives
          .map(({ inserted }) => inserted?.["node-name"])
          .filter((name) => name?.startsWith("disk"))
          .toSorted(),
      ).toEqual(["disk0", "disk1", "disk2", "disk3"]);
      expect(names(box.path("backups")).filter((name) => name.startsWith("."))).toEqual([]);
    }
    const manifest = (name: string) => JSON.parse(box.read("backups", name, "manifest.json"));
    /** The guest-visible contents of a snapshot's disk. */
    async function rawDisk(snapshot: string, disk: number): Promise<string> {
      const raw = join(box.top, `${disk}.raw`);
      const from = box.path("backups", snapshot, `disk-${disk}`);
      await shell(
        existsSync(`${from}.qcow2`)
          ? `qemu-img convert -O raw "json:$J" '${raw}'`.replace(
              "$J",
              JSON.stringify({
                driver: "qcow2",
                file: { driver: "file", filename: `${from}.qcow2` },
              }).replaceAll(/["$`\\]/g, "\\$&"),
            )
          : `pigz -dc '${from}.img.gz' >'${raw}.qcow2'; qemu-img convert -O raw '${raw}.qcow2' '${raw}'`,
        box.top,
      );
      return raw;
    }
    async function expectOneMoment(snapshot: string): Promise<number> {
      const first = countRecords(await rawDisk(snapshot, 0));
      const second = countRecords(await rawDisk(snapshot, 1));
      expect([0, 1]).toContain(first - second);
      return second;
    }
    const features = async (snapshot: string): Promise<string> =>
      shell(`PATH=$PATH:/sbin:/usr/sbin; dumpe2fs -h '${await rawDisk(snapshot, 2)}' 2>/dev/null`, box.top);
    const agentIsThere = () => until("the agent", async () => (await box.vm(["exec", "true"])).status === 0);

    beforeAll(async () => {
      const { linuxIso } = await guests();
      configure(box, `MEMORY=256M\nCORES=1\nPORT=\nDISKS=(VIRT=128M AHCI=128M NVME=64M USB=16M)\n`);
      await shell(PACK, box.host);
      box.write("guest.sh", GUEST);
      await box.ok(["create", "Guest", linuxIso]);
      await shell(
        `PATH=$PATH:/sbin:/usr/sbin; truncate -s 64M fs.raw; mke2fs -q -F -t ext4 fs.raw; qemu-img convert -O qcow2 fs.raw '${join(box.work, "disk-2.img")}'`,
        box.top,
      );
      await box.ok(["run", "--detach"]);
      await until("the guest", () => ticks() > 5);
      await agentIsThere();
    });
    afterAll(() => box[Symbol.dispose]());

    test("has one point in time of all disks, in each format; with filesystems frozen by the agent", async () => {
      let before = 0;
      for (const [name, format] of [
        ["q0", "qcow2"],
        ["q1", "qcow2"],
        ["g0", "gz"],
        ["q2", "qcow2"],
      ] as const) {
        await box.ok(["backup", name, `--format=${format}`]);
        await expectClean();
        await expectTicking();
        expect(manifest(name)).toMatchObject({ format, consistency: "agent" });
        const now = await expectOneMoment(name);
        expect(now).toBeGreaterThan(before);
        before = now;
        expect(await features(name)).not.toContain("needs_recovery");
      }
      expect([manifest("q1").parent, manifest("q2").parent]).toEqual(["q0", "q1"]);
      expect((await box.ok(["verify", "--all", "--deep"])).stdout).not.toContain("BAD");
    });

    test("a paused guest stays paused", async () => {
      await box.ok(["pause"]);
      await box.ok(["backup", "paused", "--format=qcow2"]);
      expect(await qmp((client) => client.execute("query-status"))).toMatchObject({ running: false });
      await expectClean();
      await expectOneMoment("paused");
      await box.ok(["resume"]);
      await expectTicking();
    });

    test("killed at any time, it leaves the guest unchanged, and the next command cleans up", async () => {
      const moments = allVariations ? 20 : 2;
      for (let moment = 0; moment < moments; moment++) {
        const format = moment % 2 ? "gz" : "qcow2";
        const running = box.start(["backup", "--rate-limit=20M", `--format=${format}`, "killed"]);
        await Bun.sleep(40 + (moment * 400) / moments);
        running.kill("SIGKILL");
        await running.done;
        rmSync(box.path("backups/killed"), { recursive: true, force: true });
        await box.ok(["snapshots", "describe", "q0", `after ${moment}`]);
        await expectClean();
        await expectTicking();
      }
      await box.ok(["backup", "after", "--format=qcow2"]);
      await expectOneMoment("after");
    });

    test("interrupted, it cleans up", async () => {
      const running = box.start(["backup", "--rate-limit=1M", "--format=qcow2", "--full", "ended"]);
      await untilCopying(running);
      running.kill("SIGTERM");
      expect((await running.done).status).toBe(143);
      await expectClean();
      await expectTicking();
    });

    test("the next command thaws filesystems that a killed one left frozen", async () => {
      mkdirSync(box.path("backups/.vm-partial-x"), { mode: 0o700 });
      {
        using agent = await GuestAgent.connect(join(box.work, "agent.sock"), 10_000);
        await agent.execute("guest-fsfreeze-freeze");
      }
      const { stderr } = await box.ok(["snapshots", "describe", "q0", "woken"]);
      expect(stderr).toContain("thawed guest filesystems");
      {
        using agent = await GuestAgent.connect(join(box.work, "agent.sock"), 10_000);
        expect(await agent.execute("guest-fsfreeze-status")).toBe("thawed");
      }
      await expectClean();
    });

    rootTest("without space only the snapshot fails", async () => {
      await shell(`mv backups kept; mkdir backups; mount -t tmpfs -o size=300k none backups`, box.host);
      try {
        for (const format of ["qcow2", "gz"]) {
          expectError(await box.vm(["backup", `--format=${format}`]), 73, /no (room|space)/);
          await expectClean();
          await expectTicking();
        }
      } finally {
        await shell(`umount backups; rmdir backups; mv kept backups`, box.host);
      }
    });

    rootTest("also without space for copy-before-write data", async () => {
      const big = (...more: string[]) =>
        box.ok(["exec", "dd", "if=/dev/urandom", "of=/fs/big", "bs=1M", "count=30", "conv=fsync", ...more]);
      await big();
      await shell(`mv backups kept; mkdir backups; mount -t tmpfs -o size=28M none backups`, box.host);
      let running: Running | undefined;
      try {
        // The target must not fill the space before, where the guest writes slowly.
        running = box.start(["backup", "--format=qcow2", "--rate-limit=256K", "--full"]);
        await untilCopying(running);
        await big("conv=notrunc,fsync");
        expectError(await running.done, 73, /no space left in .* for copy-before-write data/);
        await expectClean();
        await expectTicking();
      } finally {
        running?.kill("SIGTERM");
        await running?.done;
        await shell(`umount backups; rmdir backups; mv kept backups`, box.host);
      }
    });

    test("works with programs in the guest: the agent loses neither them nor the freeze", async () => {
      const words = ["a", "b", "c", "d"];
      const [backup, ...programs] = await Promise.all([
        box.vm(["backup", "beside", "--format=qcow2"]),
        ...words.map((word) => box.vm(["exec", "sh", "-c", `sleep 1; echo ${word}`])),
      ]);
      expect(backup.stderr).toContain("snapshot beside");
      expect(manifest("beside").consistency).toBe("agent");
      expect(programs.map(({ status, stdout }) => [status, stdout])).toEqual(
        words.map((word) => [0, `${word}\n`]),
      );
    });

    testInTurn(1)("without an agent it is crash-consistent", async () => {
      const { status, stderr } = await box.vm(["exec", "sh", "-c", "killall qemu-ga; sleep 99"]);
      expect([status, stderr]).toEqual([74, expect.stringContaining("the guest agent exited")]);
      await box.ok(["backup", "crash", "--format=qcow2"]);
      expect(manifest("crash").consistency).toBe("crash-consistent");
      await expectOneMoment("crash");
      expect(await features("crash")).toContain("needs_recovery");
    });

    describe("if the guest shuts down meanwhile", () => {
      test("there is no snapshot, and the next one works", async () => {
        const running = box.start(["backup", "--rate-limit=1M", "--format=qcow2", "--full", "off"]);
        await untilCopying(running);
        await box.ok(["stop", "--force"]);
        expectError(await running.done, 74, /qemu exited/);
        expect(existsSync(box.path("backups/off"))).toBe(false);
        await box.ok(["backup", "offline", "--format=qcow2"]);
        expect(manifest("offline")).toMatchObject({ consistency: "crash-consistent" });
        await expectOneMoment("offline");
      });
    });
  },
  ["qemu-ga", "mke2fs", "dumpe2fs"],
);
