/** Full snapshots of working disks that are overlays: holes are not read, and they have one point in time. */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { QmpClient } from "../../src/qmp/client.ts";
import { until } from "./harness.ts";
import { content, filled, isCopy, manifest, write } from "./images.ts";
import { names, sampled, suite } from "./tools.ts";

suite(
  "a full snapshot of an overlay",
  () => {
    test("off: is standalone, with the data of the overlay and of its backing file", async () => {
      using box = await filled();
      await box.ok(["@backup", "base", "@restore"]);
      await write(box, "write -P 2 8M 1M", "write -z 2M 1M", "write -P 3 50M 64k");
      const before = await content(box);
      await box.ok(["@backup", "--full", "Q", "@backup", "--format=gz", "G"]);
      expect(manifest(box, "Q")).not.toHaveProperty("parent");
      await box.ok(["snapshots", "diff", "Q", "G"]);
      for (const name of ["Q", "G"]) {
        await box.ok(["restore", "--copy", name]);
        expect(await content(box)).toBe(before);
      }
    });

    test.each(sampled(["qcow2", "gz"], 0))(
      "running: data overwritten meanwhile is in it unchanged (%s)",
      async (format) => {
        using box = await filled();
        await box.ok(["@backup", "base", "@restore"]);
        await write(box, "write -P 2 8M 2M", "write -z 2M 1M", "write -P 3 50M 64k");
        const before = await content(box);
        await box.ok(["run", "--detach"]);
        const running = box.start(["backup", "--full", `--format=${format}`, "--rate-limit=1M", "live"]);
        const qmp = await QmpClient.connect(join(box.work, "qmp.sock"));
        try {
          await until("the copy has begun", async () => (await qmp.execute("query-jobs")).some(isCopy));
          // In the overlay, in its backing file, where zeroes hide that, and in holes of both.
          for (const place of ["9M 512k", "8256k 64k", "15M 64k", "2M 64k", "30M 64k", "50M 4k"])
            expect(
              await qmp.executeUntyped("human-monitor-command", {
                "command-line": `qemu-io -d /machine/peripheral/disk0-dev/virtio-backend "write -P 9 ${place}"`,
              }),
            ).not.toMatch(/error|failed/i);
          const jobs = await qmp.execute("query-jobs");
          expect(jobs.length).toBeGreaterThan(0);
          for (const { id } of jobs)
            await qmp.executeUntyped("block-job-set-speed", { device: id, speed: 0 });
        } finally {
          qmp.close();
        }
        expect(await running.done).toMatchObject({ status: 0 });
        await box.ok(["stop", "--force"]);
        expect(await content(box)).not.toBe(before);
        expect(names(box.path("backups/live")).filter((name) => name.startsWith("."))).toEqual([]);
        await box.ok(["@verify", "live", "@restore", "--copy", "live"]);
        expect(await content(box)).toBe(before);
        expect(existsSync(box.path("backups/base"))).toBe(true);
      },
    );
  },
  ["qemu-io", "sha256sum"],
);
