/** How long it takes to list many snapshots, and to remove most of them. */
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatTimestamp } from "../../src/lib/time.ts";
import { environment, median, ms, printTable, vm, within } from "./bench-table.ts";

const LIMIT_MS = 200;
const LIMIT_AT = 1000;

/** Snapshots of an hour each, every tenth whole, the others changes to the one before. */
function makeSnapshots(host: string, count: number): void {
  for (let index = 0; index < count; index++) {
    const dir = join(host, "backups", `S${index}`);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    const made = new Date(Date.UTC(2026, 0, 1, index));
    const disk = { name: "disk-0.img", file: "disk-0.img", bytes: 4096, allocatedBytes: 4096 };
    const manifest = {
      version: 1,
      format: "qcow2",
      ...(index % 10 === 0 ? {} : { parent: `S${index - 1}` }),
      tool: "vm 0.1.0",
      guest: "bench",
      made: made.toISOString(),
      consistency: "clean",
      firstTime: false,
      files: [{ ...disk, storedBytes: 4096, virtualBytes: 2 ** 30 }],
    };
    writeFileSync(join(dir, "manifest.json"), JSON.stringify(manifest, null, 2));
    writeFileSync(join(dir, "TS"), `${formatTimestamp(made)}\n`);
    writeFileSync(join(dir, "DESCRIPTION"), `hour ${index}\n`);
    writeFileSync(join(dir, "SHA256SUMS"), "");
    writeFileSync(join(dir, "disk-0.img"), Buffer.alloc(4096));
  }
  symlinkSync(`S${count - 1}`, join(host, "backups/LAST"));
}

export function benchSnapshotsList(scratch: string, rounds: number): void {
  const env = environment(scratch);
  const host = join(scratch, "many");
  const time = (words: readonly string[]): number => {
    const begin = performance.now();
    const { exitCode, stderr } = Bun.spawnSync([vm, ...words], { cwd: host, env, stdout: "ignore" });
    if (exitCode !== 0) throw new Error(`vm ${words.join(" ")} ended with ${exitCode}:\n${stderr}`);
    return performance.now() - begin;
  };
  const rows: string[][] = [];
  for (const count of [100, LIMIT_AT, 4 * LIMIT_AT]) {
    makeSnapshots(host, count);
    for (const words of [["snapshots"], ["snapshots", "--json"], ["prune", "--keep-daily=30", "--dry-run"]]) {
      const took = median(Array.from({ length: rounds }, () => time(words)));
      const limit =
        count === LIMIT_AT && words[0] === "snapshots" ? within(`<= ${LIMIT_MS} ms`, took <= LIMIT_MS) : "";
      rows.push([`vm ${words.join(" ")}`, String(count), ms(took), limit]);
    }
    rows.push(["vm prune --keep-daily=30", String(count), ms(time(["prune", "--keep-daily=30"])), ""]);
    rmSync(host, { recursive: true });
  }
  printTable(`lists of snapshots, median of ${rounds} (prune: once)`, [
    ["command", "snapshots", "time", "limit"],
    ...rows,
  ]);
}
