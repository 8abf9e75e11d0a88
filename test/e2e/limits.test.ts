/** Limits of qemu by a real systemd: a manager of the user, in a mount namespace whose /run says that systemd has booted. */
import { expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { QmpClient } from "../../src/qmp/client.ts";
import { assemble } from "../guests/assemble.ts";
import { binary, Sandbox, until } from "./harness.ts";
import { configure, isRoot, shell, smallSandbox, suite } from "./tools.ts";

/** Prints JSON of status, and the groups of qemu. */
const script = (words: string): string => `
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/user/0
export XDG_RUNTIME_DIR=/run/user/0
/lib/systemd/systemd --user --unit=basic.target >/dev/null 2>&1 &
manager=$!
trap 'kill $manager' EXIT
for i in $(seq 100); do [ -S /run/user/0/bus ] && busctl --user status org.freedesktop.systemd1 >/dev/null 2>&1 && break; sleep 0.1; done
${words} run --detach >&2
${words} status --json
pid=$(${words} status --json | sed -n 's/^ *"pid": \\([0-9]*\\).*/\\1/p')
cat /proc/$pid/cgroup
${words} stop --force >&2
`;

/** Limits of the first disk, as qemu has them. */
async function limitsInQemu(box: Sandbox): Promise<unknown> {
  const qmp = await QmpClient.connect(join(box.work, "qmp.sock"));
  try {
    const drives = (await qmp.executeUntyped("query-block")) as { inserted: Record<string, unknown> }[];
    const { iops, bps } = drives.find(({ inserted }) => inserted?.["node-name"] === "disk0")!.inserted;
    return { iops, bps };
  } finally {
    qmp.close();
  }
}

/** What the guest reads of its disk in a second, measured for two. */
async function measureReads(box: Sandbox): Promise<{ reads: number; bytes: number }> {
  const qmp = await QmpClient.connect(join(box.work, "qmp.sock"));
  try {
    const look = async () => {
      const [{ stats }] = (await qmp.executeUntyped("query-blockstats")) as [
        { stats: { rd_operations: number; rd_bytes: number } },
      ];
      return { reads: stats.rd_operations, bytes: stats.rd_bytes, at: performance.now() };
    };
    const before = await look();
    await Bun.sleep(2000);
    const after = await look();
    const seconds = (after.at - before.at) / 1000;
    return { reads: (after.reads - before.reads) / seconds, bytes: (after.bytes - before.bytes) / seconds };
  } finally {
    qmp.close();
  }
}

suite(
  "limits",
  () => {
    test("of a disk: a guest that never stops reading gets what it may, and no more", async () => {
      using box = new Sandbox();
      configure(box, "MEMORY=16M\nCORES=1\nPORT=\nUSENETDEV=\n");
      const image = Buffer.alloc(1 << 20);
      const source = readFileSync(join(import.meta.dir, "../guests/reader.asm"), "utf8");
      image.set(await assemble(`SECTORS equ 64\n${source}`));
      writeFileSync(join(box.host, "reader.img"), image);
      await box.ok(["create", "G", "--inplace", "--from=reader.img", "--disk-size=1M"]);
      await box.ok(["run", "--detach"]);
      // Without limits it is at least twice as fast, so that they are what holds it.
      const isFast = async (): Promise<boolean> => (await measureReads(box)).reads > 64;
      await until("it reads", isFast);
      await box.ok(["disk", "set", "0", "--bps=1M"]);
      const { bytes } = await measureReads(box);
      expect(bytes / (1 << 20)).toBeWithin(0.01, 1.3);
      await box.ok(["disk", "set", "0", "--bps=0", "--iops=20"]);
      const { reads } = await measureReads(box);
      expect(reads).toBeWithin(1, 25);
      await box.ok(["disk", "set", "0", "--iops=0"]);
      await until("it reads fast again", isFast);
      await box.ok(["stop", "--force"]);
    });

    test("of a disk: at the start, changed at once, and unchanged by a live backup", async () => {
      using box = smallSandbox();
      configure(box, "MEMORY=64M\nCORES=1\nPORT=\nDISKS=(VIRT=16M)\n");
      await box.ok(["create", "G"]);
      await box.ok(["disk", "set", "0", "--iops=100", "--bps=1M"]);
      await box.ok(["run", "--detach"]);
      expect(await limitsInQemu(box)).toEqual({ iops: 100, bps: 1 << 20 });
      await box.ok(["backup", "--format=qcow2", "S0"]);
      expect(await limitsInQemu(box)).toEqual({ iops: 100, bps: 1 << 20 });
      await box.ok(["disk", "set", "0", "--iops=0"]);
      expect(await limitsInQemu(box)).toEqual({ iops: 0, bps: 1 << 20 });
      await box.ok(["stop", "--force"]);
    });

    // A container without systemd as PID 1 lets root run one.
    const withSystemd =
      isRoot && Bun.which("busctl") !== null && Bun.which("unshare") !== null ? test : test.skip;
    withSystemd("by systemd: a scope in the slice, named in status", async () => {
      using box = smallSandbox();
      await box.ok(["create", "lim it"]);
      await box.ok(["set", "CPU_QUOTA=50%", "MEMORY_MAX=1G", "SLICE=vmtest.slice"]);
      const words = `env HOME=${box.home} TMPDIR=${box.tmp} ${binary} -d ${box.host}`;
      const path = box.path("script.sh");
      writeFileSync(path, script(words));
      const output = await shell(`unshare -m bash ${path}`, box.host);
      expect(output).toMatch(/0::\/\S*vmtest\.slice\/vm-lim\\x20it-\d+\.scope\n/);
      expect(output).toMatch(/"group": "\/\S*vmtest\.slice\/vm-lim/);
    });
  },
  ["unshare"],
);
