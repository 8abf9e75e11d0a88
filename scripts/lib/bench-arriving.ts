/** The time until a guest's first message: from a local disk, and straight from a repository. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { ArrivingLab, START } from "../../test/e2e/arriving-lab.ts";
import { until } from "../../test/e2e/harness.ts";
import { seconds } from "./bench-snapshots.ts";
import { median, printTable, within } from "./bench-table.ts";

/** Besides the time from a local disk. */
const MAX_SECONDS = 3;

export async function benchArriving(rounds: number): Promise<void> {
  using lab = await ArrivingLab.create();
  await lab.save();
  const lines: Record<string, readonly string[]> = {
    "run --detach": ["run", "--detach"],
    "restore --from-remote --run": START,
  };
  const times = new Map<string, number[]>(Object.keys(lines).map((name) => [name, []]));
  for (let round = 1; round <= rounds; round++)
    for (const [name, words] of Object.entries(lines)) {
      await lab.load();
      rmSync(join(lab.box.work, "console.log"), { force: true });
      const begin = performance.now();
      const command = lab.box.start(words);
      await until("the guest", () => lab.counts().length > 0);
      times.get(name)!.push((performance.now() - begin) / 1000);
      await command.done;
    }
  const [local, remote] = [...times.values()].map(median) as [number, number];
  const more = remote - local;
  printTable(`the first message of a guest: median of ${rounds}`, [
    ["command", "time", "besides"],
    ["run --detach", seconds(local), ""],
    [
      "restore --from-remote --run",
      seconds(remote),
      within(`${seconds(more)} (<= ${MAX_SECONDS} s)`, more <= MAX_SECONDS),
    ],
  ]);
}
