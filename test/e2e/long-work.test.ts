/** Long work is reported on stderr, with what it waits for, even without a terminal. */
import { expect, test } from "bun:test";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Sandbox, until } from "./harness.ts";
import { configure, suite } from "./tools.ts";

const untilSaid = (child: ReturnType<Sandbox["start"]>, line: RegExp): Promise<true> =>
  until(`${line} on stderr`, () => line.test(child.stderr()));

suite(
  "long work",
  () => {
    test("names a program that hangs, with its pid; prints nothing with --quiet", async () => {
      using box = new Sandbox();
      configure(box, "DISKS=(VIRT=1M)\nPORT=\n");
      await box.ok(["create", "G"]);
      const bin = join(box.top, "bin");
      mkdirSync(bin);
      writeFileSync(join(bin, "qemu-img"), '#!/bin/sh\necho $$ >"$HOME/pid"; exec sleep "${NAP-600}"\n');
      chmodSync(join(bin, "qemu-img"), 0o755);
      const env = { PATH: `${bin}:${process.env.PATH}` };
      const child = box.start(["backup"], { env });
      await untilSaid(child, /^waiting for qemu-img \(pid \d+\), \d+\.\d s$/m);
      const pid = (await Bun.file(join(box.home, "pid")).text()).trim();
      expect(child.stderr()).toContain(`waiting for qemu-img (pid ${pid}), `);
      child.kill("SIGTERM");
      expect((await child.done).status).toBe(143);
      // Longer than until the first line is due.
      const quiet = await box.vm(["backup", "--quiet"], { env: { ...env, NAP: "3" } });
      expect(quiet.stderr).not.toContain("waiting");
    });

    test("names the process that holds an awaited lock", async () => {
      using box = new Sandbox();
      configure(box, "DISKS=(VIRT=1M)\nPORT=\n");
      await box.ok(["@create", "G", "@backup"]);
      const holder = Bun.spawn(["flock", box.host, "sleep", "600"]);
      try {
        for (const words of [["backup"], ["prune", "--keep-last=1"]]) {
          const child = box.start([...words, "--lock-timeout=600"]);
          const line = new RegExp(
            `^waiting at most 600 s for the lock of ${box.host}, held by .*sleep 600 \\(pid \\d+\\)$`,
            "m",
          );
          await untilSaid(child, line);
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
