/** A VM that runs while its disks are copied from the repository: whatever fails, no write of the guest is lost. */
import { expect, test } from "bun:test";
import { appendFileSync, existsSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { buildUnreliableNode } from "../../src/qemu/devices/image.ts";
import { listBlockNodes } from "../../src/qmp/block.ts";
import { QmpClient } from "../../src/qmp/client.ts";
import { ArrivingLab, DISK } from "./arriving-lab.ts";
import { Sandbox, until } from "./harness.ts";
import { backing, run } from "./images.ts";
import { expectError, names, sampled, suite, testInTurn } from "./tools.ts";

const pausedAway = (lab: ArrivingLab, orElse = (): boolean => false): Promise<unknown> =>
  until("the pause", async () => {
    const { state, arriving } = await lab.status();
    // The process that serves it finds out why soon after.
    const isNoticed = arriving?.repository === "away" && arriving.reason !== undefined;
    return isNoticed && (state === "paused" || orElse());
  });

suite(
  "restore --from-remote --run",
  () => {
    test.each(sampled(["AHCI", "VIRT", "SCSI"]))(
      "%s: a guest that reads what is away is paused, and resumed when it is back; the disk needs no repository then",
      async (bus) => {
        using lab = await ArrivingLab.create(bus);
        const { box } = lab;
        expect(await lab.bootSlowly()).toEqual({ count: 0, far: "a1a1a1a1" });
        expect(await lab.write()).toEqual({ count: 1, far: "a1a1a1a1" });
        expect(await lab.status()).toMatchObject({ state: "running", arriving: { repository: "serves" } });
        expectError(await box.vm(["backup", "S1"]), 75, /cannot back up: of disk-0.img a part is only/);
        await lab.takeAway();
        await lab.read();
        await pausedAway(lab);
        const said = (await box.ok(["status"])).stdout;
        expect(said).toMatch(
          /incomplete: +disk-0.img: a part is only in S0 in the repository.*it cannot be read now \(.*there is no repository at /,
        );
        expect(said).toContain("guest paused: ");
        expectError(await box.vm(["resume"]), 66, /cannot resume: the repository/);
        lab.limit(undefined);
        lab.bringBack();
        // By itself.
        await until("the answer", () => lab.counts().length > 2);
        expect(lab.counts()[2]).toEqual({ count: 1, far: "c3c3c3c3" });
        await until("the record", () => lab.isSettled());
        expect(await backing(join(box.work, DISK))).toBeUndefined();
        await until("the end of restic", async () => (await box.leftovers()).length === 1);
        expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(box.top);
        expect(names(box.tmp).filter((name) => name.endsWith(".temporary"))).toEqual([]);
        // As after a power cut, and without a repository.
        rmSync(join(box.top, "repo"), { recursive: true });
        await lab.kill(lab.qemu);
        expect(await lab.boot()).toEqual({ count: 1, far: "a1a1a1a1" });
        expect(await lab.isAsInSnapshot()).toBe(true);
      },
    );

    test("a read of the guest fails while qemu copies from what cannot be read: it is not answered with other data", async () => {
      using box = new Sandbox();
      const [base, disk, socket] = ["base", "disk", "qmp"].map((name) => join(box.top, name));
      await run(["qemu-img", "create", "-q", "-f", "qcow2", base!, "1M"]);
      await run(["qemu-io", "-f", "qcow2", "-c", "write -q -P 0xa1 0 64k", base!]);
      await run(["qemu-img", "create", "-q", "-f", "qcow2", disk!, "1M"]);
      const node = buildUnreliableNode({ format: "qcow2", path: base! });
      // Its tables cannot be read.
      const [image] = node.children;
      const fails = [{ event: "l2_load", once: false }];
      image!.file = { driver: "blkdebug", image: image!.file, "inject-error": fails };
      const nodes = [
        { ...node, "node-name": "base" },
        { driver: "qcow2", "node-name": "disk", file: { driver: "file", filename: disk }, backing: "base" },
      ];
      const options = `-machine none -display none -qmp unix:${socket},server=on,wait=off`;
      const argv = [
        "qemu-system-x86_64",
        ...options.split(" "),
        ...nodes.flatMap((one) => ["-blockdev", JSON.stringify(one)]),
      ];
      await using qemu = Bun.spawn(argv, { stdout: "pipe", stderr: "pipe" });
      await until("qemu", () => existsSync(socket!));
      const qmp = await QmpClient.connect(socket!);
      const words = { "job-id": "job", device: "disk", "on-error": "stop" } as const;
      await qmp.execute("block-stream", words);
      await until("the error", async () => (await qmp.execute("query-jobs"))[0]?.status === "paused");
      const filter = (await listBlockNodes(qmp)).find(({ driver }) => driver === "copy-on-read")!;
      const line = `qemu-io ${filter.node} "read 0 512"`;
      await qmp.executeUntyped("human-monitor-command", { "command-line": line });
      qmp.close();
      qemu.kill();
      const said = (await qemu.stdout.text()) + (await qemu.stderr.text());
      expect(said).toMatch(/read failed: Input\/output error/);
    });

    testInTurn(0, 3)(
      "everything killed while the repository is away: flushed writes stay, and the next run completes the disk",
      async () => {
        using lab = await ArrivingLab.create();
        const { box } = lab;
        await lab.bootSlowly();
        await lab.write();
        await lab.takeAway();
        await lab.read();
        await pausedAway(lab);
        // As when the host is restarted.
        await lab.kill(/^/);
        expect((await box.ok(["status"])).stdout).toMatch(/incomplete: .*to continue: \S+ run --detach/);
        expectError(await box.vm(["run", "--detach"]), 66, /there is no repository at/);
        expectError(await box.vm(["clone", "../D"]), 75, /a part is only in the repository/);
        lab.limit(undefined);
        lab.bringBack();
        expect(await lab.boot()).toEqual({ count: 1, far: "a1a1a1a1" });
        await until("the record", () => lab.isSettled());
        expect(await lab.isAsInSnapshot()).toBe(true);
      },
    );

    testInTurn(1, 3)(
      "the keeper killed: the guest, in a jail, is paused at the next read, and resume starts another",
      async () => {
        using lab = await ArrivingLab.create();
        const { box } = lab;
        appendFileSync(join(box.home, ".config/vm.conf"), "JAIL=auto\n");
        await lab.bootSlowly();
        expect(await lab.kill(lab.keeper)).toBe(1);
        await until("the end of restic", async () => (await lab.kill(lab.restic)) === 0);
        await lab.read();
        await until("the pause", async () => (await lab.status()).state === "paused");
        expect((await box.ok(["status"])).stdout).toMatch(/incomplete: .*to continue: \S+ resume/);
        lab.limit(undefined);
        await box.ok(["resume"]);
        await until("the answer", () => lab.counts().length > 1);
        expect(lab.counts()[1]).toEqual({ count: 0, far: "c3c3c3c3" });
        await until("the record", () => lab.isSettled());
        expect(await lab.isAsInSnapshot()).toBe(true);
      },
    );

    testInTurn(2, 3)("a repository that is moved away in the middle is noticed, and read again", async () => {
      using lab = await ArrivingLab.create();
      await lab.bootSlowly();
      renameSync(join(lab.box.top, "repo"), join(lab.box.top, "away"));
      await lab.read();
      // On a busy machine restic may have read that already.
      await pausedAway(lab, () => lab.counts().length > 1);
      lab.limit(undefined);
      lab.bringBack();
      await until("the answer", () => lab.counts().length > 1);
      expect(lab.counts()[1]).toEqual({ count: 0, far: "c3c3c3c3" });
      await until("the record", () => lab.isSettled());
      expect(existsSync(join(lab.box.work, ".vm-repository"))).toBe(false);
      expect(await lab.isAsInSnapshot()).toBe(true);
    });
  },
  ["restic", "fusermount3"],
);
