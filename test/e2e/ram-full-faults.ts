/** The commands that save, restore and clone a guest's RAM, on a filesystem in memory that is too small for them. */
import { existsSync, mkdirSync, rmSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { seededRandom } from "./faults-lab.ts";
import { saysNoSpace } from "./full-faults.ts";
import type { Result } from "./harness.ts";
import { endClones, judgeClones, judgeRestored, judgeRunning, RAM_BACKUP } from "./ram-faults.ts";
import { RamVm } from "./ram-vm.ts";
import { must } from "./soak-lab.ts";
import { badSpeech, type Ran } from "./soak-speech.ts";
import { judgeSuspended, type SuspendSweep } from "./suspend-faults.ts";

/** A tmpfs whose size can be changed; unmounted on disposal. */
class SmallTmpfs implements AsyncDisposable {
  private constructor(readonly path: string) {}

  static async at(path: string): Promise<SmallTmpfs> {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    await must(["mount", "-t", "tmpfs", "-o", "size=2g,mode=700", "vm-small", path]);
    return new SmallTmpfs(path);
  }

  used(): number {
    const { blocks, bfree, bsize } = statfsSync(this.path);
    return (blocks - bfree) * bsize;
  }

  /** Leaves this many bytes free; without a number, enough for everything. */
  async leave(bytes?: number): Promise<void> {
    const size = bytes === undefined ? "2g" : String(this.used() + bytes);
    await must(["mount", "-o", `remount,size=${size}`, this.path]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await must(["umount", this.path]).catch(() => must(["umount", "--lazy", this.path]));
    rmSync(this.path, { recursive: true, force: true });
  }
}

interface Stage {
  command: readonly string[];
  /** Makes the situation in which the command is run. */
  prepare(vm: RamVm): Promise<void>;
  /** @returns what is wrong after it has failed, with space again; the command is then run once more */
  failed(vm: RamVm): Promise<string[]>;
  /** @returns what is wrong after it has succeeded; leaves a running guest */
  done(vm: RamVm): Promise<string[]>;
}

const CLONES = ["c1", "c2"];
const stop = (vm: RamVm): Promise<unknown> => vm.ok("stop", "--force");

/** A guest that had no space for its disk is paused. */
async function judgeResumed(vm: RamVm): Promise<string[]> {
  const { state } = JSON.parse((await vm.ok("status", "--json")).stdout) as { state: string };
  if (state === "paused") await vm.ok("resume");
  return judgeRunning(vm);
}

const backupStage = (format: string): Stage => ({
  command: ["backup", "--ram", `--format=${format}`, "tried"],
  prepare: async () => {},
  failed: async (vm) => [
    ...(existsSync(join(vm.box.host, "backups/tried")) ? ["half a snapshot has its final name"] : []),
    ...(await judgeResumed(vm)),
  ],
  done: async (vm) => {
    const wrong = await judgeResumed(vm);
    await stop(vm);
    await vm.ok("restore", "tried");
    wrong.push(...(await judgeRestored(vm, "tried", vm.number)));
    await stop(vm);
    await vm.ok("restore", "base");
    await vm.ok("snapshots", "rm", "tried");
    return [...wrong, ...(await judgeRestored(vm, "base", vm.number))];
  },
});

const cloneStage = (...how: string[]): Stage => ({
  command: ["clone", "--keep-guest", "--run", ...how, "--count=2", "base", "../c"],
  prepare: async () => {},
  failed: async (vm) => {
    const made = CLONES.filter((name) => existsSync(join(vm.box.top, name, ".work")));
    const wrong: string[] = [];
    for (const name of made) {
      // It is complete: it runs, or it has its state still.
      const { status, stderr } = await vm.box.vm(["-d", join(vm.box.top, name), "run", "--detach"]);
      if (status !== 0 && status !== 75) wrong.push(`run of ${name} ended with ${status}: ${stderr}`);
    }
    wrong.push(...(await judgeClones(vm, "base", made)));
    await clearClones(vm);
    return [...wrong, ...(await judgeResumed(vm))];
  },
  done: async (vm) => {
    const wrong = [...(await judgeClones(vm, "base", CLONES)), ...(await endClones(vm, CLONES))];
    await clearClones(vm);
    return [...wrong, ...(await vm.judge())];
  },
});

async function clearClones(vm: RamVm): Promise<void> {
  for (const name of CLONES) {
    const place = join(vm.box.top, name);
    if (existsSync(join(place, ".work"))) await vm.box.ok(["-d", place, "destroy", "--force"]);
    rmSync(place, { recursive: true, force: true });
  }
}

const STAGES: Readonly<Record<string, Stage>> = {
  suspend: {
    command: ["suspend"],
    prepare: async () => {},
    failed: judgeResumed,
    done: async (vm) => {
      const wrong = await judgeSuspended(vm);
      await vm.run();
      return [...wrong, ...(await vm.judge())];
    },
  },
  "backup qcow2": backupStage("qcow2"),
  "backup gz": backupStage("gz"),
  restore: {
    command: ["restore", "base"],
    prepare: async (vm) => {
      vm.count = (await vm.ask()).count;
      await stop(vm);
    },
    // The disk is the one of before.
    failed: async (vm) => {
      const record = await vm.record();
      return record.number === vm.number && record.count >= vm.count - 1
        ? []
        : [`the disk has the record of another time: ${record.count}, not ${vm.count}`];
    },
    done: (vm) => judgeRestored(vm, "base", vm.number),
  },
  "clone linked": cloneStage("--linked"),
  "clone full": cloneStage(),
  // The last one, as its guest has another number than the snapshot.
  resume: {
    command: ["run", "--detach"],
    // A machine that was resumed before has all of its RAM in a file already.
    prepare: async (vm) => {
      await stop(vm);
      await vm.run();
      await vm.booted();
      await vm.ok("suspend");
    },
    failed: judgeSuspended,
    done: judgeResumed,
  },
};

/** Runs each command with less space than it needs, in steps. @param wanted is a stage of this name wanted? */
export async function sweepRamFull(
  { seed, point, parent = "/tmp" }: SuspendSweep,
  { steps, wanted = () => true }: { steps: number; wanted?: (name: string) => boolean },
): Promise<void> {
  const random = seededRandom(seed + 5);
  await using small = await SmallTmpfs.at(join(parent, `vm-small-${process.pid}`));
  using vm = await RamVm.make("", small.path);
  await vm.run();
  await vm.booted();
  await vm.box.ok([...RAM_BACKUP, "base"]);
  for (const [name, stage] of Object.entries(STAGES)) {
    if (!wanted(name)) continue;
    const { command } = stage;
    const run = async (): Promise<Ran> => {
      const result: Result = await vm.box.vm(command);
      return { ...result, argv: command, seconds: 0, hung: false };
    };
    await stage.prepare(vm);
    const begin = small.used();
    let most = begin;
    const watch = setInterval(() => (most = Math.max(most, small.used())), 1);
    await vm.box.ok(command);
    clearInterval(watch);
    const need = Math.max(most, small.used()) - begin;
    point(`ram:full ${name}:whole`, await stage.done(vm));
    for (let step = 0; step < steps; step++) {
      const share = (step + random() * 0.9) / steps;
      const limit = Math.floor((need * share) / 4096) * 4096;
      await stage.prepare(vm);
      await small.leave(limit);
      const ran = await run();
      await small.leave();
      const wrong = [...saysNoSpace(ran), ...badSpeech(ran)];
      if (ran.status !== 0) {
        wrong.push(...(await stage.failed(vm)));
        const again = await run();
        if (again.status !== 0) wrong.push(`again, with space: status ${again.status}: ${again.stderr}`);
      }
      wrong.push(...(await stage.done(vm)));
      point(`ram:full ${name}:${limit} of ${need} bytes`, wrong);
    }
  }
  await stop(vm);
  const { status, stdout } = await vm.box.vm(["verify", "--all"]);
  point("ram:full:verify", status === 0 ? [] : [stdout]);
}
