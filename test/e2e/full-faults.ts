/**
 * Full disks and I/O errors (EIO): small ext4 filesystems, and errors injected into system calls on the VM's files.
 * Failing devices (dm-flakey) would need the kernel's device mapper, which containers lack.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { BusyVm } from "./busy-vm.ts";
import { seededRandom } from "./faults-lab.ts";
import { binary } from "./harness.ts";
import { BOTH, judgeSoak, SOAK_SCENARIOS, type SoakScenario } from "./kill-faults.ts";
import { judgeQemu, LIVE_BACKUPS } from "./live-kill-faults.ts";
import { must, soakVariantName, type SoakLab, type SoakSweep } from "./soak-lab.ts";
import { badSpeech, lastLines, notDone, type Ran } from "./soak-speech.ts";

/** Mounts an ext4 over a directory, with its files; unmounted on disposal. */
export class SmallExt4 implements AsyncDisposable {
  private constructor(
    readonly path: string,
    readonly image: string,
  ) {}

  /** @param image path of the filesystem: a new file */
  static async over(path: string, image: string, megabytes = 48): Promise<SmallExt4> {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    rmSync(image, { force: true });
    await must(["truncate", "-s", `${megabytes}M`, image]);
    await must(["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,root_owner=0:0", "-d", path, image]);
    await must(["mount", "-o", "loop", image, path]);
    await must(["chmod", "700", path]);
    rmSync(join(path, "lost+found"), { recursive: true, force: true });
    return new SmallExt4(path, image);
  }

  free(): number {
    const { bavail, bsize } = statfsSync(this.path);
    return bavail * bsize;
  }

  get #ballast(): string {
    return join(this.path, ".ballast");
  }

  /** Leaves this many bytes free. */
  async leave(bytes: number): Promise<void> {
    // The extents of a large file use some blocks themselves.
    for (let size = this.free() - bytes; size > 0; size -= 8192) {
      const child = Bun.spawn(["fallocate", "-l", String(size), this.#ballast], { stderr: "ignore" });
      if ((await child.exited) === 0) return;
    }
  }

  enlarge(): void {
    rmSync(this.#ballast, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await must(["umount", this.path]).catch(() => must(["umount", "--lazy", this.path]));
    rmSync(this.image, { force: true });
  }
}

/** Can this user mount a file by a loop device here? */
export async function canLoop(): Promise<boolean> {
  const dir = `/tmp/vm-loop-${process.pid}`;
  try {
    await using _disk = await SmallExt4.over(dir, `${dir}.img`, 2);
    return true;
  } catch {
    return false;
  } finally {
    rmSync(dir, { recursive: true, force: true });
    rmSync(`${dir}.img`, { force: true });
  }
}

/** Problems with how a command ended that had too little room. */
export function saysNoSpace({ argv, status, stderr, signal }: Ran): string[] {
  if (status === 0) return [];
  // A failed write of restic is a failed write of the program.
  const allowed = argv.includes("push") ? [73, 74] : [73];
  return [
    ...(allowed.includes(status ?? -1)
      ? []
      : [`${argv.join(" ")}: status ${status ?? signal} instead of 73: ${lastLines(stderr)}`]),
    ...(/no room|no space/i.test(stderr)
      ? []
      : [`${argv.join(" ")}: the message does not speak of room: ${lastLines(stderr)}`]),
  ];
}

/** Runs each command with less space than it needs. */
export async function sweepSmallDisks(
  { seed, point, labs, wanted }: SoakSweep,
  steps: number,
): Promise<void> {
  const random = seededRandom(seed + 2);
  for (const variant of BOTH)
    for (const [name, scenario] of Object.entries(SOAK_SCENARIOS))
      for (const fill of scenario.fills) {
        const title = `full:${name}:${soakVariantName(variant)}:${fill}`;
        if (!wanted(title)) continue;
        const lab = await labs.get(variant);
        const place = fill === "work" ? (variant.inplace ? "vm1" : "tmp") : fill;
        /** @returns the space that it used */
        const attempt = async (turn: number, limit?: number): Promise<number> => {
          await lab.load(scenario.template);
          await using disk = await SmallExt4.over(join(lab.box.top, place), `${lab.store}/ext4`);
          const begin = disk.free();
          let least = begin;
          if (limit === undefined) {
            const watch = setInterval(() => (least = Math.min(least, disk.free())), 2);
            await lab.ok(scenario.command);
            clearInterval(watch);
            return begin - Math.min(least, disk.free());
          }
          await disk.leave(limit);
          const ran = await lab.run(scenario.command);
          disk.enlarge();
          const wrong = saysNoSpace(ran);
          if (scenario.makesRoom && ran.status !== 0)
            wrong.push("what makes room must work where there is none");
          wrong.push(...(await judgeSoak(lab, scenario, ran, turn)));
          point(`${title}:${limit} bytes`, wrong);
          return 0;
        };
        const need = await attempt(0);
        for (let step = 0; step < steps; step++) {
          const share = steps === 1 ? random() : (step + random() * 0.8) / steps;
          await attempt(step + name.length, Math.floor((need * share) / 4096) * 4096);
        }
      }
}

/** Snapshots of a running VM whose files are all on one small disk. */
export async function sweepSmallLive({ seed, point, labs, wanted }: SoakSweep, steps: number): Promise<void> {
  const random = seededRandom(seed + 3);
  for (const variant of BOTH) {
    const names = Object.keys(LIVE_BACKUPS).filter((name) =>
      wanted(`full:${name}:${soakVariantName(variant)}`),
    );
    if (names.length === 0) continue;
    const { store } = await labs.get(variant);
    await using disk = await SmallExt4.over(join(store, "live"), `${store}/ext4-live`, 96);
    using vm = await BusyVm.make(variant, disk.path);
    const { lab } = vm;
    const qemu = await vm.start();
    for (let turn = 0; turn < steps * names.length; turn++) {
      const command = LIVE_BACKUPS[names[turn % names.length]!]!;
      const limit = Math.floor(random() * 300) * 4096;
      await disk.leave(limit);
      const ran = await lab.run(command);
      disk.enlarge();
      const wrong = [...saysNoSpace(ran), ...badSpeech(ran), ...(await lab.quiet([qemu]))];
      // qemu pauses a guest if its write has no space.
      const { stdout } = await lab.run(["status", "--json"]);
      if (/"paused"|io-error/.test(stdout)) wrong.push(...notDone("then", await lab.run(["resume"])));
      wrong.push(...(await vm.writesOn()), ...(await vm.judgeSnapshots()).wrong);
      wrong.push(...notDone("then", await lab.run(["backup", "--format=qcow2"])), ...(await judgeQemu(vm)));
      wrong.push(...notDone("then", await lab.run(["prune", "--keep-last=1"])));
      wrong.push(...(await vm.judgeSnapshots()).wrong);
      point(`full:${names[turn % names.length]}:${soakVariantName(variant)}:${turn}:${limit} bytes`, wrong);
    }
    const end = [
      ...notDone("in the end", await lab.run(["stop", "--force"])),
      ...((await vm.work())?.wrong ?? ["the working disks are gone"]),
      ...notDone("in the end", await lab.run(["verify", "--all", "--deep"])),
      ...notDone("in the end", await lab.run(["destroy"])),
    ];
    point(`full:live end:${soakVariantName(variant)}`, end);
  }
}

const WRITES = [
  "write",
  "pwrite64",
  "pwritev",
  "fsync",
  "fdatasync",
  "ftruncate",
  "fallocate",
  "copy_file_range",
];
const NAMES = ["rename", "renameat2", "mkdir", "symlink", "link", "unlink", "unlinkat", "openat"];
const READS = ["read", "pread64", "preadv"];

interface Call {
  call: string;
  when: number;
}

/** Only calls on the sandbox's files that are the WHENth of their kind in a thread. */
function learnCalls(text: string, top: string): Call[] {
  const counts = new Map<string, number>();
  const good = new Map<string, boolean>();
  for (const line of text.split("\n")) {
    const match = /^(\d+) +([a-z0-9_]+)\(/.exec(line);
    if (!match) continue;
    const key = `${match[1]} ${match[2]}`;
    const when = (counts.get(key) ?? 0) + 1;
    counts.set(key, when);
    const point = `${match[2]} ${when}`;
    good.set(point, (good.get(point) ?? true) && line.includes(`${top}/`));
  }
  return [...good]
    .filter(([, isGood]) => isGood)
    .map(([key]) => ({ call: key.split(" ")[0]!, when: Number(key.split(" ")[1]) }));
}

/** Makes system calls of the program and its children on the VM's files fail, one in each run. */
export async function sweepErrors({ seed, point, labs, wanted }: SoakSweep, each: number): Promise<void> {
  const random = seededRandom(seed + 4);
  for (const variant of BOTH)
    for (const [name, scenario] of Object.entries(SOAK_SCENARIOS)) {
      if (!wanted(`full:${name}:${soakVariantName(variant)}:calls`)) continue;
      const lab = await labs.get(variant);
      const all = [...WRITES, ...NAMES, ...READS];
      await lab.load(scenario.template);
      const learned = learnCalls((await traced(lab, scenario, all)).text, lab.box.top);
      const kinds = Map.groupBy(learned, ({ call }) => call);
      // Each kind of call equally often, however many calls of it there are.
      for (let turn = 0, tries = 0; turn < each && tries < each * 4 && kinds.size > 0; tries++) {
        const kind = [...kinds.keys()][Math.floor(random() * kinds.size)]!;
        const calls = kinds.get(kind)!;
        const { call, when } = calls[Math.floor(random() * calls.length)]!;
        const fault = WRITES.includes(call) && random() < 0.4 ? "ENOSPC" : "EIO";
        await lab.load(scenario.template);
        const { ran, text } = await traced(lab, scenario, [call], `${call}:error=${fault}:when=${when}`);
        const hit = text.split("\n").filter((line) => line.includes("(INJECTED)"));
        // Threads take turns: another one may have made a call without disk access.
        if (hit.length === 0 || hit.some((line) => !line.includes(`${lab.box.top}/`))) continue;
        // Files that restic then cannot remove remain.
        if (hit.some((line) => /unlink.*restic-temp/.test(line))) continue;
        const wrong: string[] = [];
        if (![0, 73, 74].includes(ran.status ?? -1))
          wrong.push(`status ${ran.status ?? ran.signal}: ${lastLines(ran.stderr)}`);
        wrong.push(...(await judgeSoak(lab, scenario, ran, tries)));
        const where = hit[0]!.replaceAll(lab.box.top, "").slice(0, 160);
        point(
          `full:${name}:${soakVariantName(variant)}:calls:${call}:${fault}:${when}`,
          wrong.map((violation) => `${violation} [${where}]`),
        );
        turn++;
      }
    }
}

async function traced(
  lab: SoakLab,
  { command }: SoakScenario,
  calls: readonly string[],
  inject?: string,
): Promise<{ ran: Ran; text: string }> {
  const log = join(lab.store, "strace");
  rmSync(log, { force: true });
  const trace = calls.map((call) => `?${call}`).join(",");
  const argv = ["strace", "-f", "-y", "-qq", "-o", log, "-e", `trace=${trace}`, "-e", "signal=none"];
  const injection = inject === undefined ? [] : ["-e", `inject=${inject}`];
  const ran = await lab.run(command, { argv: [...argv, ...injection, "--", binary], seconds: 120 });
  return { ran, text: existsSync(log) ? readFileSync(log, "utf8") : "" };
}
