/** How long it takes to list many VMs. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { environment, median, ms, printTable, vm, within } from "./bench-table.ts";

const VMS = 200;
const LIMIT_MS = 150;

export function benchList(scratch: string, rounds: number): void {
  const env = environment(scratch);
  const home = join(scratch, "home/vm");
  const config = join(scratch, "home/.config");
  for (const directory of [home, config]) mkdirSync(directory, { recursive: true, mode: 0o700 });
  writeFileSync(join(config, "vm.conf"), "PORT=\nDISKS=( VIRT=1G )\n");
  for (let index = 0; index < VMS; index++) {
    const cwd = join(home, `vm${index}`);
    mkdirSync(cwd);
    const { exitCode, stderr } = Bun.spawnSync([vm, "create", `guest ${index}`], { cwd, env });
    if (exitCode !== 0) throw new Error(`vm create ended with ${exitCode}:\n${stderr}`);
  }
  const time = (...words: string[]): number =>
    median(
      Array.from({ length: rounds }, () => {
        const begin = performance.now();
        const { exitCode, stderr } = Bun.spawnSync([vm, ...words], { cwd: home, env, stdout: "ignore" });
        if (exitCode !== 0) throw new Error(`vm ${words.join(" ")} ended with ${exitCode}:\n${stderr}`);
        return performance.now() - begin;
      }),
    );
  const rows = [["list"], ["list", "--json"], ["list", "-q"]].map((words) => {
    const took = time(...words);
    return [`vm ${words.join(" ")}`, ms(took), within(`<= ${LIMIT_MS} ms`, took <= LIMIT_MS)];
  });
  printTable(`${VMS} VMs, median of ${rounds}`, [["command", "time", "limit"], ...rows]);
  rmSync(home, { recursive: true });
  rmSync(join(config, "vm.conf"));
}
