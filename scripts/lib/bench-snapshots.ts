/** Backup and restore of a disk of real files beside pigz by hand, on the same disk in the same run. */
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { formatSize } from "../../src/lib/size.ts";
import { environment, median, printTable, vm, within } from "./bench-table.ts";

const MIB = 2 ** 20;
const LOOK_MS = 20;

export interface Options {
  cache: string;
  scratch: string;
  mebibytes: number;
  rounds: number;
}

interface Done {
  seconds: number;
  /** The largest resident set of the process itself, without its children. */
  peakKiB: number;
}

function peakOf(pid: number): number {
  try {
    return Number(/^VmHWM:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

const running = new Set<Bun.Subprocess>();
process.on("exit", () => {
  for (const child of running) child.kill();
});

/** Runs a program to its end, from file to file where these are given. */
export async function runTimed(
  argv: string[],
  options: { cwd?: string; env?: Record<string, string>; from?: string; to?: string } = {},
): Promise<Done> {
  const stdin = options.from === undefined ? "ignore" : openSync(options.from, "r");
  const stdout = options.to === undefined ? "ignore" : openSync(options.to, "w");
  Bun.spawnSync(["sync", "-f", import.meta.dir]); // others' writes are none of its business
  const begin = performance.now();
  const child = Bun.spawn(argv, { ...options, stdin, stdout, stderr: "pipe" });
  running.add(child);
  const looker = { peakKiB: 0 };
  const timer = setInterval(() => (looker.peakKiB = Math.max(looker.peakKiB, peakOf(child.pid))), LOOK_MS);
  const [status, stderr] = await Promise.all([child.exited, new Response(child.stderr).text()]);
  const seconds = (performance.now() - begin) / 1000;
  running.delete(child);
  clearInterval(timer);
  for (const fd of [stdin, stdout]) if (typeof fd === "number") closeSync(fd);
  if (status !== 0) throw new Error(`${argv.join(" ")} ended with ${status}:\n${stderr}`);
  return { seconds, peakKiB: looker.peakKiB };
}

/** This machine's own programs and documents, in an order that does not change. */
async function findFiles(): Promise<{ path: string; bytes: number }[]> {
  const places = ["/usr/bin", "/usr/share", "/usr/sbin", "/usr/lib"].filter((path) => existsSync(path));
  const found = await Bun.$`find ${places} -xdev -type f -readable -printf ${"%s %p\\0"}`.quiet().nothrow();
  return found.stdout
    .toString()
    .split("\0")
    .filter((line) => line !== "")
    .map((line) => ({ bytes: Number.parseInt(line, 10), path: line.slice(line.indexOf(" ") + 1) }))
    .toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

/** A qcow2 disk with an ext4 filesystem full of them: `count` MiB behind the first `skip`. */
export async function makeDisk(disk: string, skip: number, count: number): Promise<void> {
  if (existsSync(disk)) return;
  console.error(`making ${disk} …`);
  let sum = 0;
  let bytes = 0;
  const taken: string[] = [];
  for (const file of await findFiles()) {
    sum += file.bytes;
    if (sum <= skip * MIB) continue;
    if (bytes >= count * MIB) break;
    taken.push(file.path.slice(1));
    bytes += file.bytes;
  }
  if (bytes < count * MIB) console.error(`bench: /usr has no more than ${formatSize(bytes)} for it`);
  const stage = `${disk}.stage`;
  const raw = `${disk}.raw`;
  for (const path of [stage, raw]) rmSync(path, { recursive: true, force: true });
  mkdirSync(stage);
  try {
    const list = new Response(taken.join("\0"));
    await Bun.$`tar -C / --null -T - -cf - < ${list} | tar -C ${stage} -xf -`.quiet();
    writeFileSync(raw, "");
    truncateSync(raw, Math.ceil(count * 1.5 + 64) * MIB);
    await Bun.$`mke2fs -q -F -t ext4 -d ${stage} ${raw}`.quiet();
    await Bun.$`qemu-img convert -O qcow2 ${raw} ${disk}.part`.quiet();
    renameSync(`${disk}.part`, disk);
  } finally {
    for (const path of [stage, raw]) rmSync(path, { recursive: true, force: true });
  }
}

const bytesOf = (path: string): number => statSync(path).size;
export const seconds = (value: number): string => `${value.toFixed(2)} s`;

/** A VM with copies of these disks, or with an overlay on one image. */
export class Guest {
  readonly #host: string;

  constructor(
    readonly scratch: string,
    name: string,
    disks: readonly string[],
    image?: string,
  ) {
    this.#host = join(scratch, name);
    mkdirSync(this.#host, { mode: 0o700 });
    const wanted = `--disks=${disks.length > 0 ? disks.map(() => "VIRT=1M").join(",") : "VIRT=1M"}`;
    const linked = image === undefined ? [] : [`--from=${image}`, "--linked"];
    const { exitCode, stderr } = Bun.spawnSync([vm, wanted, "create", ...linked, name], {
      cwd: this.#host,
      env: environment(scratch),
    });
    if (exitCode !== 0) throw new Error(stderr.toString());
    for (const [index, disk] of disks.entries())
      copyFileSync(disk, join(this.#host, ".work", `disk-${index}.img`));
  }

  vm(...args: string[]): Promise<Done> {
    return runTimed([vm, ...args], { cwd: this.#host, env: environment(this.scratch) });
  }

  path(below: string): string {
    return join(this.#host, below);
  }

  disk(index: number): string {
    return this.path(`.work/disk-${index}.img`);
  }

  forget(): void {
    rmSync(join(this.#host, "backups"), { recursive: true });
  }

  remove(): void {
    rmSync(realpathSync(join(this.#host, ".work")), { recursive: true });
    rmSync(this.#host, { recursive: true });
  }
}

async function benchOneDisk({ scratch, rounds }: Options, disk: string): Promise<void> {
  const guest = new Guest(scratch, "one", [disk]);
  const gz = join(scratch, "hand.gz");
  const out = join(scratch, "hand.img");
  const times = { pigz: [] as Done[], backup: [] as Done[], unpigz: [] as Done[], restore: [] as Done[] };
  let stored = 0;
  for (let round = 1; round <= rounds; round++) {
    console.error(`one disk, round ${round} of ${rounds} …`);
    times.pigz.push(await runTimed(["pigz", "-9", "-c"], { from: disk, to: gz }));
    times.backup.push(await guest.vm("backup", "S0"));
    times.unpigz.push(await runTimed(["unpigz", "-c"], { from: gz, to: out }));
    rmSync(out);
    times.restore.push(await guest.vm("restore", "S0"));
    stored = bytesOf(guest.path("backups/S0/disk-0.img.gz"));
    if (round < rounds) guest.forget();
  }
  const time = (of: Done[]): number => median(of.map((done) => done.seconds));
  const peak = (of: Done[]): number => Math.max(...of.map((done) => done.peakKiB)) / 1024;
  const memory = (of: Done[]): string => within(`${peak(of).toFixed(0)} MiB (< 120)`, peak(of) < 120);
  const faster = time(times.pigz) / time(times.backup);
  const larger = (stored / bytesOf(gz) - 1) * 100;
  printTable(
    `A qcow2 disk of ${formatSize(bytesOf(disk))}: median of ${rounds}, ${availableParallelism()} cores`,
    [
      ["way", "time", "beside pigz", "size", "beside pigz -9", "peak memory of vm"],
      ["pigz -9", seconds(time(times.pigz)), "", formatSize(bytesOf(gz)), "", ""],
      [
        "vm backup",
        seconds(time(times.backup)),
        within(`${faster.toFixed(1)}× faster (>= 3)`, faster >= 3),
        formatSize(stored),
        within(`${larger >= 0 ? "+" : ""}${larger.toFixed(2)} % (<= 2)`, larger <= 2),
        memory(times.backup),
      ],
      ["unpigz", seconds(time(times.unpigz)), "", "", "", ""],
      [
        "vm restore",
        seconds(time(times.restore)),
        `${(time(times.unpigz) / time(times.restore)).toFixed(2)}× as fast`,
        "",
        "",
        memory(times.restore),
      ],
    ],
  );
  guest.remove();
  rmSync(gz);
}

async function benchTwoDisks({ scratch, rounds }: Options, disks: string[]): Promise<void> {
  const rows = new Map<string, number[][]>([
    ["backup", [[], []]],
    ["restore", [[], []]],
  ]);
  const pair = new Guest(scratch, "pair", disks);
  const single = disks.map((disk, index) => new Guest(scratch, `single-${index}`, [disk]));
  for (let round = 1; round <= rounds; round++) {
    console.error(`two disks, round ${round} of ${rounds} …`);
    for (const [command, [together, apart]] of rows) {
      together!.push((await pair.vm(command, "S0")).seconds);
      let sum = 0;
      for (const guest of single) sum += (await guest.vm(command, "S0")).seconds;
      apart!.push(sum);
    }
    for (const guest of [pair, ...single]) guest.forget();
  }
  printTable(
    `Two disks of ${disks.map((disk) => formatSize(bytesOf(disk))).join(" and ")}: median of ${rounds}`,
    [
      ["command", "in one VM", "in two VMs, one after the other"],
      ...[...rows].map(([command, sides]) => [
        `vm ${command}`,
        ...sides.map((side) => seconds(median(side))),
      ]),
    ],
  );
  for (const guest of [pair, ...single]) guest.remove();
}

export async function benchSnapshots(options: Options): Promise<void> {
  const { cache, mebibytes } = options;
  const half = Math.ceil(mebibytes / 4);
  const disk = join(cache, `disk-${mebibytes}.qcow2`);
  const pair = [0, half].map((skip) => join(cache, `disk-${skip}-${half}.qcow2`));
  await makeDisk(disk, 0, mebibytes);
  for (const [index, path] of pair.entries()) await makeDisk(path, index * half, half);
  await benchOneDisk(options, disk);
  await benchTwoDisks(options, pair);
}
