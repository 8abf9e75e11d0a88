/** Snapshots with the RAM of a running guest, with real qemu. Their files: test/commands/ram.test.ts. */
import { expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { initRepository } from "../fixtures/restic-repository.ts";
import { binary, until } from "./harness.ts";
import { judgeRunning, readRecordInRam, sweepRamSnapshots } from "./ram-faults.ts";
import { RamVm } from "./ram-vm.ts";
import { expectError, names, seed, sha256, suite, testInTurn } from "./tools.ts";

suite(
  "a snapshot with RAM",
  () => {
    test("RAM and disk are of one point in time; each restore resumes there, once", async () => {
      using vm = await RamVm.make();
      const { box } = vm;
      await vm.run();
      await vm.booted();
      for (const format of ["qcow2", "gz"])
        expect((await box.ok(["backup", "--ram", `--format=${format}`])).stderr).toContain("with RAM");
      expect(await judgeRunning(vm)).toEqual([]);
      const { number, count } = vm;
      await box.ok(["stop", "--force"]);
      const sum = sha256(box.path("backups/S0/state.ram"));

      const counts: number[] = [];
      for (const name of ["S0", "S1", "S0"]) {
        await box.ok(["restore", name]);
        const record = await vm.record();
        if (name === "S0") expect(readRecordInRam(box.path(`backups/${name}/state.ram`))).toEqual(record);
        vm.count = record.count;
        counts.push(record.count);
        await vm.run();
        expect(await vm.judge()).toEqual([]);
        await until("further records", async () => (await vm.ask()).count > record.count + 2);
        await box.ok(["stop", "--force"]);
      }
      expect(counts[1]).toBeWithin(counts[0]!, count + 1);
      expect(counts[2]).toBe(counts[0]!);
      expect(vm.number).toBe(number);

      // Only once: what the guest wrote since is on the disk.
      await vm.run();
      expect((await vm.ask()).number).not.toBe(number);
      await box.ok(["stop", "--force"]);
      expect(sha256(box.path("backups/S0/state.ram"))).toBe(sum);
      const { stdout } = await box.ok(["verify", "--boot", "S0"]);
      expect(stdout).toContain("S0: good, qcow2");
      expect(stdout).toContain("resumes (runs)");
    });

    testInTurn(1)(
      "kill -9 of backup --ram and restore: the old state is intact, and the next command works",
      async () => {
        const wrong: string[] = [];
        const point = (name: string, found: readonly string[]): void =>
          void wrong.push(...found.map((text) => `${name}: ${text}`));
        await sweepRamSnapshots({ seed, point }, { rounds: 0, kills: 2 });
        expect(wrong).toEqual([]);
      },
    );

    test("a pushed one is fetched from a restic repository, and resumes", async () => {
      using vm = await RamVm.make();
      const { box } = vm;
      const password = box.path("../password");
      writeFileSync(password, "secret", { mode: 0o600 });
      const env = { RESTIC_REPOSITORY: box.path("../repo"), RESTIC_PASSWORD_FILE: password };
      initRepository(env.RESTIC_REPOSITORY, password);
      await vm.run();
      await vm.booted();
      await box.ok(["backup", "--ram", "--format=qcow2", "--push"], { env });
      await box.ok(["stop", "--force"]);
      await box.ok(["destroy"]);
      rmSync(box.path("backups"), { recursive: true });
      await box.ok(["restore", "--from-remote", "--run"], { env });
      expect(await judgeRunning(vm)).toEqual([]);
    });

    test("without space: 73, the guest keeps running, and no snapshot is left", async () => {
      using vm = await RamVm.make();
      const { box } = vm;
      await vm.run();
      await vm.booted();
      const full = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=sendfile:error=ENOSPC", binary];
      expectError(await box.vm(["backup", "--ram"], { program: full }), 73, /cannot save the RAM: no space/);
      expect(await judgeRunning(vm)).toEqual([]);
      await box.ok(["backup", "--ram"]);
      expect(names(box.path("backups"))).toEqual(["LAST", "S0"]);
    });
  },
  ["strace", "restic"],
);
