/**
 * A VM whose guest writes to both its disks without a pause (test/guests/busy.asm), with two lineages of
 * disks: any snapshot of it can be identified as of one lineage and one point in time, or not.
 */
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { join } from "node:path";
import { judgeBusy, type Busy } from "./disk-oracle.ts";
import { guests, until } from "./harness.ts";
import { loadFactor, must, SoakLab, type SoakVariant } from "./soak-lab.ts";

/** Protected snapshots without records, one of each lineage and of each format. */
export const BASES = { base1: 1, base2: 2 } as const;

const isDisk = (name: string): boolean => /^disk-\d+\.(?:img|img\.gz|qcow2)$/.test(name);

export class BusyVm implements Disposable {
  private constructor(readonly lab: SoakLab) {}

  static async make(variant: SoakVariant, parent?: string): Promise<BusyVm> {
    const { busyDisk } = await guests();
    const vm = new BusyVm(SoakLab.empty(variant, parent));
    try {
      await vm.#prepare(busyDisk);
    } catch (error) {
      vm[Symbol.dispose]();
      throw error;
    }
    return vm;
  }

  async #prepare(bootSector: string): Promise<void> {
    const { lab } = this;
    await lab.ok(["create", "Busy"]);
    rmSync(join(lab.box.work, "FIRSTTIME"), { force: true });
    const write = (disk: number, ...commands: string[]): Promise<string> =>
      must(
        ["qemu-io", "-f", "qcow2"].concat(
          commands.flatMap((one) => ["-c", one]),
          join(lab.box.work, `disk-${disk}.img`),
        ),
      );
    await write(0, `write -q -s ${bootSector} 0 512`);
    for (const [name, lineage] of Object.entries(BASES)) {
      for (const disk of [0, 1]) await write(disk, `write -q -P ${lineage} 12M 64k`);
      await lab.ok(["backup", name, `--format=${lineage === 1 ? "gz" : "qcow2"}`]);
    }
    await lab.ok(["snapshots", "protect", ...Object.keys(BASES)]);
  }

  /** Starts the guest in the background. @returns qemu's process id, once the guest writes */
  async start(): Promise<number> {
    await this.lab.ok(["run", "--detach"]);
    await until("the guest's first records", () => this.dots() > 0, 60 * loadFactor());
    return this.qemuPids()[0] ?? 0;
  }

  qemuPids(): number[] {
    return this.lab
      .processes()
      .filter((line) => /^\d+ \S*qemu-system/.test(line))
      .map((line) => Number.parseInt(line, 10));
  }

  /** Counts the guest's messages of having written. */
  dots(): number {
    const dir = this.lab.workDir();
    if (dir === undefined || !existsSync(join(dir, "console.log"))) return 0;
    return readFileSync(join(dir, "console.log"), "utf8").split(".").length - 1;
  }

  /** @returns the problem if the guest no longer writes */
  async writesOn(): Promise<string[]> {
    const before = this.dots();
    try {
      await until("further records", () => this.dots() > before + 1, 10 * loadFactor());
      return [];
    } catch {
      return [`the guest writes no more: ${this.dots()} dots; qemu: ${this.qemuPids().join(" ") || "none"}`];
    }
  }

  snapshot(name: string): Promise<Busy> {
    const dir = this.lab.box.path("backups", name);
    return judgeBusy(dir, readdirSync(dir).filter(isDisk));
  }

  /** The working disks of a VM that is off. */
  async work(): Promise<Busy | undefined> {
    const dir = this.lab.workDir();
    const disks = dir === undefined ? [] : readdirSync(dir).filter(isDisk);
    return disks.length === 0 ? undefined : judgeBusy(dir!, disks);
  }

  last(): string | undefined {
    const link = this.lab.box.path("backups", "LAST");
    return lstatSync(link, { throwIfNoEntry: false }) && readlinkSync(link);
  }

  /** Invariants of the listed snapshots, after any disturbance. */
  async judgeSnapshots(): Promise<{ wrong: string[]; last: Busy | undefined }> {
    const wrong: string[] = [];
    const names = this.lab.names();
    for (const name of names) {
      const dir = this.lab.box.path("backups", name);
      const sums = Bun.spawnSync(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], {
        cwd: dir,
        stderr: "pipe",
        timeout: 60_000,
      });
      if (sums.exitCode !== 0) wrong.push(`the snapshot ${name} is damaged: ${sums.stderr}`);
      else
        for (const problem of (await this.snapshot(name)).wrong)
          wrong.push(`the snapshot ${name}: ${problem}`);
    }
    for (const [name, lineage] of Object.entries(BASES)) {
      if (!names.includes(name)) wrong.push(`the protected snapshot ${name} is lost`);
      else {
        const found = await this.snapshot(name);
        if (found.lineage !== lineage || found.count !== 0)
          wrong.push(`${name} is of lineage ${found.lineage}, with ${found.count} records`);
      }
    }
    const last = this.last();
    if (last === undefined || !names.includes(last))
      wrong.push(`LAST is ${last}; there are ${names.join(" ")}`);
    return { wrong, last: last && names.includes(last) ? await this.snapshot(last) : undefined };
  }

  [Symbol.dispose](): void {
    this.lab[Symbol.dispose]();
  }
}
