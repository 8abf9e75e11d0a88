/** Long work is reported on stderr, with what it waits for, even without a terminal. */
import { expect, test } from "bun:test";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Sandbox, until } from "./harness.ts";
import { configure, suite } from "./tools.ts";

/** Seconds from the start until such a line is on stderr. */
async function secondsUntil(child: ReturnType<Sandbox["start"]>, line: RegExp): Promise<number> {
  const started = performance.now();
  await until(`${line} on stderr`, () => line.test(child.stderr()), 20);
  return (performance.now() - started) / 1000;
}

/** A busy machine may take long to start a program: the unit test checks the limit of 2 s. */
const SOON_SECONDS = 10;

suite(
  "long work",
  () => {
    test("names a program that hangs, with its pid; prints nothing with --quiet", async () => {
      using box = new Sandbox();
      configure(box, "DISKS=(VIRT=1M)\nPORT=\n");
      await box.ok(["create", "G"]);
      const bin = join(box.top, "bin");
      mkdirSync(bin);
      writeFileSync(join(bin, "qemu-img"), '#!/bin/sh\necho $$ >"$HOME/pid"; exec sleep 60\n');
      chmodSync(join(bin, "qemu-img"), 0o755);
      const env = { PATH: `${bin}:${process.env.PATH}` };
      const child = box.start(["backup"], { env });
      expect(await secondsUntil(child, /^waiting for qemu-img \(pid \d+\), \d+\.\d s$/m)).toBeLessThan(
        SOON_SECONDS,
      );
      const pid = (await Bun.file(join(box.home, "pid")).text()).trim();
      expect(child.stderr()).toContain(`waiting for qemu-img (pid ${pid}), `);
      child.kill("SIGTERM");
      expect((await child.done).status).toBe(143);
      const quiet = box.start(["backup", "--quiet"], { env });
      await Bun.sleep(3000);
      expect(quiet.stderr()).not.toContain("waiting");
      quiet.kill("SIGTERM");
      await quiet.done;
    });

    test("names the process that holds an awaited lock", async () => {
      using box = new Sandbox();
      configure(box, "DISKS=(VIRT=1M)\nPORT=\n");
      await box.ok(["@create", "G", "@backup"]);
      const holder = Bun.spawn(["flock", box.host, "sleep", "60"]);
      try {
        for (const words of [["backup"], ["prune", "--keep-last=1"]]) {
          const child = box.start([...words, "--lock-timeout=60"]);
          const line = new RegExp(`^waiting for the lock of ${box.host}: .*sleep 60 \\(pid \\d+\\)$`, "m");
          expect(await secondsUntil(child, line)).toBeLessThan(SOON_SECONDS);
          child.kill("SIGTERM");
          await child.done;
        }
      } finally {
        holder.kill();
      }
    });
  },
  ["flock"],
);
