/** A VM that runs while its disk is copied from a repository, for arriving.test.ts and the soak. */
import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { listFuseMounts, unmountFuse } from "../../src/process/mounts.ts";
import { QmpClient } from "../../src/qmp/client.ts";
import { hasExited } from "../fixtures/has-exited.ts";
import { initRepository } from "../fixtures/restic-repository.ts";
import { buildCountGuest, FAR_SECTOR, NEW_SECTOR, readCounts } from "../guests/count.ts";
import { processesIn, Sandbox, until } from "./harness.ts";
import { run } from "./images.ts";
import { configure } from "./tools.ts";

export const START = ["restore", "S0", "--from-remote", "--run"];
export const DISK = "disk-0.img";
export const FAR = FAR_SECTOR * 512;
/** What a restore changes, below the sandbox. */
const STATE = ["vm1", "tmp"];
const NEW = NEW_SECTOR * 512;
const MIB = 1 << 20;
/** So fast that the guest boots, and the job is seen before it has copied all. */
const FIRST_KIB_PER_SECOND = 4000;

/** What `status --json` says. */
export interface ArrivingStatus {
  state: string;
  pid?: number;
  guestErrors?: string[];
  arriving?: { disks: string[]; repository: string; reason?: string; percent?: number };
}

export class ArrivingLab implements Disposable {
  readonly box: Sandbox;
  /** Raw contents of the snapshot's disk. */
  readonly wanted: string;
  readonly #restic: string;
  #oldWork = "";

  private constructor(box: Sandbox) {
    this.box = box;
    this.wanted = join(box.top, "wanted");
    this.#restic = join(box.top, "bin/restic");
  }

  /**
   * Pushes S0: the counting guest, 12 MiB that cannot be compressed, `a1a1a1a1` in the far sector, and `c3c3c3c3` in the new one.
   * Of the working disk, the far sector is `b2b2b2b2` now. Each write of the guest is flushed before it is answered.
   */
  static async create(bus = "AHCI", parent?: string): Promise<ArrivingLab> {
    const lab = new ArrivingLab(new Sandbox("vm1", parent));
    const { box } = lab;
    writeFileSync(join(box.home, "password"), "correct horse", { mode: 0o600 });
    configure(
      box,
      `MEMORY=64M\nCORES=1\nPORT=\nDISKS=(${bus}=16M)\nSHARES=()\nSNAPSHOT_FORMAT=qcow2\nSNAPSHOT_REPO=${box.top}/repo\nSNAPSHOT_PASSWORD_FILE=${box.home}/password\n`,
    );
    await box.ok(["create", "G"]);
    rmSync(join(box.work, "FIRSTTIME"), { force: true });
    if (bus === "AHCI") writeFileSync(box.path("vm.defaults"), "-global ide-hd.write-cache=off\n");
    writeFileSync(join(box.top, "sector"), await buildCountGuest());
    writeFileSync(join(box.top, "random"), randomBytes(10 * MIB));
    await lab.io(
      `write -q -s ${box.top}/sector 0 512`,
      `write -q -s ${box.top}/random 1M 10M`,
      `write -q -s ${box.top}/random ${FAR} 2560k`,
      `write -q -P 0xa1 ${FAR} 512`,
      `write -q -P 0xc3 ${NEW} 512`,
    );
    initRepository(join(box.top, "repo"), join(box.home, "password"));
    await box.ok(["backup", "S0", "--push"]);
    await run(["qemu-img", "convert", "-O", "raw", join(box.work, DISK), lab.wanted]);
    await lab.io(`write -q -P 0xb2 ${FAR} 512`);
    // The snapshot in HOSTDIR is not what its disks are made from.
    rmSync(join(box.host, "backups"), { recursive: true });
    lab.#oldWork = box.work;
    return lab;
  }

  io(...commands: string[]): Promise<unknown> {
    const words = commands.flatMap((one) => ["-c", one]);
    return run(["qemu-io", "-f", "qcow2", ...words, join(this.box.work, DISK)]);
  }

  /** Has restic read slowly; `undefined`: as fast as it can. Those that run stay as they are. */
  limit(kibPerSecond: number | undefined): void {
    rmSync(this.#restic, { force: true });
    if (kibPerSecond === undefined) return;
    mkdirSync(join(this.box.top, "bin"), { recursive: true });
    const words = `exec ${Bun.which("restic")} "$@" --limit-download ${kibPerSecond}`;
    writeFileSync(this.#restic, `#!/bin/sh\n${words}\n`, { mode: 0o755 });
    this.box.environment.PATH = `${join(this.box.top, "bin")}:${process.env.PATH}`;
  }

  async status(): Promise<ArrivingStatus> {
    return JSON.parse((await this.box.ok(["status", "--json"])).stdout) as ArrivingStatus;
  }

  /** Has the program recorded that the disk is complete? */
  isSettled(): boolean {
    return !("arriving" in JSON.parse(readFileSync(join(this.box.work, ".vm.json"), "utf8")));
  }

  async kill(what: RegExp): Promise<number> {
    const lines = (await this.box.leftovers()).filter((line) => what.test(line));
    for (const line of lines)
      try {
        process.kill(Number.parseInt(line, 10), "SIGKILL");
      } catch {
        // It has exited.
      }
    const pids = lines.map((line) => Number.parseInt(line, 10));
    await until("the end of what was killed", () => pids.every(hasExited));
    return lines.length;
  }
  readonly restic = /^\d+ \S*restic mount/;
  readonly keeper = /^\d+ \S+ __keep/;
  readonly qemu = /^\d+ \S*qemu-system/;

  /** Runs `START`, and has qemu copy slowly as soon as it does, but not as slowly as a repository that does not answer. */
  async bootSlowly(): Promise<{ count: number; far: string }> {
    this.limit(FIRST_KIB_PER_SECOND);
    const booted = this.boot(START);
    let over = false;
    void booted.then(
      () => (over = true),
      () => (over = true),
    );
    await until("the job", async () => over || (await this.#slowDown().catch(() => false)));
    return booted;
  }

  async #slowDown(): Promise<boolean> {
    const socket = join(this.box.work, "qmp.sock");
    if (this.isOld() || !existsSync(socket)) return false;
    const qmp = await QmpClient.connect(socket);
    try {
      const [job] = await qmp.execute("query-jobs");
      if (job) await qmp.executeUntyped("block-job-set-speed", { device: job.id, speed: 100_000 });
      return job !== undefined;
    } finally {
      qmp.close();
    }
  }

  moveAway(): void {
    renameSync(join(this.box.top, "repo"), join(this.box.top, "away"));
  }
  isAway(): boolean {
    return existsSync(join(this.box.top, "away"));
  }
  /** Moves the repository, and ends what still reads it. */
  async takeAway(): Promise<void> {
    this.moveAway();
    await this.kill(this.restic);
  }
  bringBack(): void {
    if (!this.isAway()) return;
    // A restic that ran on has made directories there.
    rmSync(join(this.box.top, "repo"), { recursive: true, force: true });
    renameSync(join(this.box.top, "away"), join(this.box.top, "repo"));
  }

  /** Keeps the VM as it is now, for `load`. */
  async save(): Promise<void> {
    const { top } = this.box;
    mkdirSync(join(top, "saved"));
    for (const name of STATE) await run(["cp", "-a", join(top, name), join(top, "saved", name)]);
  }
  async load(): Promise<void> {
    const { top } = this.box;
    await this.kill(/^/);
    listFuseMounts(top).forEach(unmountFuse);
    this.bringBack();
    for (const name of STATE) {
      for (const entry of readdirSync(join(top, name)))
        rmSync(join(top, name, entry), { recursive: true, force: true });
      await run(["cp", "-a", `${join(top, "saved", name)}/.`, join(top, name)]);
    }
  }

  /** Are the working files those before the restore? */
  isOld(): boolean {
    return this.box.work === this.#oldWork;
  }
  /** The disk before the restore is intact. */
  async holdsOld(): Promise<boolean> {
    return this.io(`read -q -P 0xb2 ${FAR} 512`).then(
      () => true,
      () => false,
    );
  }

  /** The last count that the guest has reported. */
  lastCount(): number {
    return Math.max(0, ...this.counts().map(({ count }) => count));
  }

  /** For a report. */
  describe(): string {
    const logs = ["keeper.log", "restic.log"].map((name) => join(this.box.work, ".vm-repository", name));
    const texts = logs
      .filter((path) => existsSync(path))
      .map((path) => readFileSync(path, "utf8").slice(-500));
    return [...texts, ...processesIn(this.box.top)].join("\n");
  }

  counts(): { count: number; far: string }[] {
    const link = join(this.box.host, ".work");
    const log = existsSync(link) ? join(realpathSync(link), "console.log") : "";
    return existsSync(log) ? readCounts(readFileSync(log, "utf8")) : [];
  }

  async type(text: string): Promise<void> {
    const unix = join(this.box.work, "console.sock");
    const socket = await Bun.connect({ unix, socket: { data: () => {} } });
    socket.write(text);
    socket.flush();
    socket.end();
  }

  /** Has the guest write one more count, and read the far sector. @returns what it says */
  async write(): Promise<{ count: number; far: string }> {
    const before = this.counts().length;
    await this.type("w");
    await until("the guest's answer", () => this.counts().length > before);
    return this.counts().at(-1)!;
  }

  /** Has the guest read the new sector, which it does for the first time. */
  read(): Promise<void> {
    return this.type("r");
  }

  /** Runs the VM again. @returns what the guest says first */
  async boot(words = ["run", "--detach"]): Promise<{ count: number; far: string }> {
    rmSync(join(this.box.work, "console.log"), { force: true });
    await this.box.ok(words);
    await until("the guest", () => this.counts().length > 0);
    return this.counts()[0]!;
  }

  /** Raw contents of the disk, but for the guest's count, are those of the snapshot. */
  async isAsInSnapshot(): Promise<boolean> {
    const raw = join(this.box.top, "raw");
    await run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", join(this.box.work, DISK), raw]);
    const [own, wanted] = [raw, this.wanted].map((path) => readFileSync(path));
    own!.fill(0, 512, 1024);
    wanted!.fill(0, 512, 1024);
    return own!.equals(wanted!);
  }

  [Symbol.dispose](): void {
    listFuseMounts(this.box.top).forEach(unmountFuse);
    this.box[Symbol.dispose]();
  }
}
