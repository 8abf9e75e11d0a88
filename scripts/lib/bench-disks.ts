/** Speed of guests' disks: the arguments of this program beside those before issue 17, libvirt's and Proxmox's. */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, statfsSync, statSync } from "node:fs";
import { join } from "node:path";
import type { DiskBus } from "../../src/machine/types.ts";
import { formatSize } from "../../src/lib/size.ts";
import { buildGuests, type Guests } from "../../test/guests/build.ts";
import { LoadGuest, prepareShare, type Load, type LoadResult } from "./bench-disk-guest.ts";
import { SET_NAMES, SETS, serialOf, type BenchDisk, type SetName } from "./bench-disk-sets.ts";
import { Guest, makeDisk } from "./bench-snapshots.ts";
import { median, printTable, within } from "./bench-table.ts";

const BUSES = ["VIRT", "SCSI", "AHCI", "NVME"] as const satisfies DiskBus[];

const KIB = 2 ** 10;
const MIB = 2 ** 20;

/** No worse than the best of the others by more than 5 %. */
const LEAST = 0.95;
/** Times as fast as before: 4 KiB random reads on VIRT, and writes into a restored overlay. */
const LEAST_READS = 1.15;
const LEAST_OVERLAY = 2;
/** What an overlay may grow by, of what was written. */
const MOST_GROWTH = 1.3;

type Test = Pick<Load, "operation" | "pattern" | "jobs" | "depth">;

const TESTS: Record<string, Test> = {
  "read, sequential": { operation: "read", pattern: "seq", jobs: 1, depth: 1 },
  "write, sequential": { operation: "write", pattern: "seq", jobs: 1, depth: 1 },
  "read, 4 KiB": { operation: "read", pattern: "random", jobs: 1, depth: 1 },
  "read, 4 KiB, 4 deep": { operation: "read", pattern: "random", jobs: 1, depth: 4 },
  "read, 4 KiB, 4 jobs": { operation: "read", pattern: "random", jobs: 4, depth: 1 },
  "write, 4 KiB": { operation: "write", pattern: "random", jobs: 1, depth: 1 },
  "write, 4 KiB, 4 deep": { operation: "write", pattern: "random", jobs: 1, depth: 4 },
  "write, 4 KiB, 4 jobs": { operation: "write", pattern: "random", jobs: 4, depth: 1 },
  "write and fsync, 4 KiB": { operation: "sync", pattern: "random", jobs: 1, depth: 1 },
};

export interface DiskOptions {
  cache: string;
  scratch: string;
  /** MiB of files on the disk of the restored snapshot. */
  mebibytes: number;
  quick: boolean;
}

/** One filesystem of the host. */
interface Place {
  name: string;
  directory: string;
}

/** statfs(2). */
const FILESYSTEMS = new Map([
  [0xef53, "ext4"],
  [0x01021994, "tmpfs"],
  [0x9123683e, "btrfs"],
  [0x58465342, "xfs"],
]);

const nameOf = (directory: string): string =>
  FILESYSTEMS.get(statfsSync(directory).type) ?? "another filesystem";

/** The checkout's filesystem, and tmpfs if there is one. */
function findPlaces(scratch: string): Place[] {
  const places = [{ name: nameOf(scratch), directory: join(scratch, "disks") }];
  mkdirSync(places[0]!.directory);
  try {
    if (nameOf(SHM) === "tmpfs") {
      const directory = mkdtempSync(join(SHM, "vm-bench-"));
      process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
      places.push({ name: "tmpfs", directory });
    }
  } catch {
    console.error(`bench: no tmpfs at ${SHM}: measured without it`);
  }
  return places;
}

const SHM = "/dev/shm";

/** Results by row and argument set, in the order of rounds. */
class Results {
  readonly #rows = new Map<string, Map<SetName, number[]>>();

  add(row: string, set: SetName, value: number): void {
    const of = this.#rows.get(row) ?? new Map<SetName, number[]>();
    this.#rows.set(row, of.set(set, [...(of.get(set) ?? []), value]));
  }

  value = (row: string, set: SetName): number => median(this.#rows.get(row)!.get(set)!);

  /** How many times the result of another set that of vm is: median of the rounds, in each of which they were measured in turn. */
  beside(row: string, other: SetName): number {
    const others = this.#rows.get(row)!.get(other)!;
    return median(
      this.#rows
        .get(row)!
        .get("vm")!
        .map((value, round) => value / others[round]!),
    );
  }

  besideBest = (row: string): number =>
    Math.min(...SET_NAMES.filter((set) => set !== "vm").map((set) => this.beside(row, set)));
}

/** Another order in each round. */
const turned = <T>(list: readonly T[], by: number): T[] => [
  ...list.slice(by % list.length),
  ...list.slice(0, by % list.length),
];

const times = (value: number): string => `${value.toFixed(2)}×`;
const atLeast = (value: number, least: number): string =>
  within(`${times(value)} (>= ${least})`, value >= least);

/** Starts one guest for each argument set. */
async function startGuests(
  guests: Guests,
  share: string,
  disksOf: (set: SetName) => readonly BenchDisk[],
): Promise<Map<SetName, LoadGuest>> {
  const started = new Map<SetName, LoadGuest>();
  // One at a time: a kernel that boots too slowly panics.
  for (const set of SET_NAMES)
    started.set(set, await LoadGuest.start(guests, share, SETS[set](disksOf(set))));
  return started;
}

/** An image full of data: writes allocate nothing. */
async function makeFull(path: string, bytes: number): Promise<void> {
  const raw = `${path}.raw`;
  await Bun.$`head -c ${bytes} /dev/urandom > ${raw}`;
  await Bun.$`qemu-img convert -f raw -O qcow2 ${raw} ${path}`;
  rmSync(raw);
}

async function benchSteady(guests: Guests, share: string, places: Place[], quick: boolean): Promise<void> {
  const bytes = (quick ? 64 : 128) * MIB;
  const [rounds, milliseconds] = quick ? [2, 200] : [9, 350];
  const disks = new Map<SetName, (BenchDisk & { place: string })[]>();
  console.error("making the images …");
  const model = join(places[0]!.directory, "model.qcow2");
  await makeFull(model, bytes);
  for (const set of SET_NAMES) {
    const all = places.flatMap(({ name, directory }) =>
      BUSES.map((bus) => ({ bus, place: name, path: join(directory, `${set}-${bus}.qcow2`) })),
    );
    for (const { path } of all) await Bun.$`cp --sparse=never ${model} ${path}`;
    disks.set(
      set,
      all.map((disk, number) => ({ ...disk, number })),
    );
  }
  rmSync(model);
  await Bun.$`sync`;
  const running = await startGuests(guests, share, (set) => disks.get(set)!);
  const results = new Results();
  for (let round = 0; round <= rounds; round++) {
    console.error(round === 0 ? "warming up …" : `disks, round ${round} of ${rounds} …`);
    for (const { name: place } of places)
      for (const bus of BUSES)
        for (const [name, test] of Object.entries(TESTS)) {
          if (round === 0 && test.pattern !== "seq") continue;
          for (const set of turned(SET_NAMES, round)) {
            const disk = disks.get(set)!.find((item) => item.bus === bus && item.place === place)!;
            const blockBytes = test.pattern === "seq" ? MIB : 4 * KIB;
            const load = { ...test, blockBytes, milliseconds, count: 0 };
            const result = await running.get(set)!.load(serialOf(disk), load);
            if (round > 0) results.add(`${place}, ${bus}, ${name}`, set, rateOf(load, result));
          }
        }
  }
  for (const guest of running.values()) await guest.end();
  for (const all of disks.values()) for (const { path } of all) rmSync(path);
  for (const { name: place } of places)
    for (const bus of BUSES)
      printTable(`${bus} on ${place}: median of ${rounds} rounds of ${milliseconds} ms`, [
        ["requests a second, or MiB", ...SET_NAMES, "of the best", "of today's"],
        ...Object.entries(TESTS).map(([name, test]) => {
          const row = `${place}, ${bus}, ${name}`;
          const today = results.beside(row, "today");
          const isWanted = bus === "VIRT" && test.operation === "read" && test.pattern === "random";
          return [
            name,
            ...SET_NAMES.map((set) => formatRate(results.value(row, set), test)),
            atLeast(results.besideBest(row), LEAST),
            isWanted ? atLeast(today, LEAST_READS) : times(today),
          ];
        }),
      ]);
}

/** Sequential: MiB a second, writes with a flush at the end; else requests a second. */
const rateOf = ({ pattern, operation }: Test, { requests, seconds, flushedSeconds }: LoadResult): number =>
  requests / (pattern === "seq" && operation === "write" ? flushedSeconds : seconds);

const formatRate = (rate: number, { pattern }: Test): string =>
  `${rate.toFixed(0)}${pattern === "seq" ? " MiB" : ""}`;

/** Random writes into overlays on a snapshot: as `restore` makes them, and as qemu-img does. */
async function benchOverlays(
  guests: Guests,
  share: string,
  places: Place[],
  { cache, scratch, mebibytes, quick }: DiskOptions,
): Promise<void> {
  const rounds = quick ? 1 : 5;
  const count = quick ? 200 : 1000;
  const source = join(cache, `disk-${mebibytes}.qcow2`);
  await makeDisk(source, 0, mebibytes);
  const vm = new Guest(scratch, "overlay", [source]);
  console.error("restoring …");
  await vm.vm("backup", "--format=qcow2", "F");
  await vm.vm("restore", "F");
  const base = vm.path("backups/F/disk-0.qcow2");
  const disks = new Map<SetName, (BenchDisk & { place: string })[]>();
  for (const set of SET_NAMES) {
    const all = places.flatMap(({ name: place, directory }) =>
      Array.from({ length: rounds }, (_, round) => join(directory, `overlay-${set}-${round}.qcow2`)).map(
        (path) => ({ path, place }),
      ),
    );
    for (const { path } of all)
      if (set === "vm") copyFileSync(vm.disk(0), path);
      else await Bun.$`qemu-img create -q -f qcow2 -F qcow2 -b ${base} ${path}`;
    disks.set(
      set,
      all.map((disk, number) => ({ ...disk, number, bus: "VIRT", base })),
    );
  }
  const running = await startGuests(guests, share, (set) => disks.get(set)!);
  const rates = new Results();
  const growths = new Results();
  const depths = [1, 4];
  for (let round = 0; round < rounds; round++) {
    console.error(`restored overlays, round ${round + 1} of ${rounds} …`);
    for (const { name: place } of places) {
      const diskOf = (set: SetName): BenchDisk =>
        disks.get(set)!.filter((disk) => disk.place === place)[round]!;
      for (const depth of depths)
        for (const set of turned(SET_NAMES, round)) {
          const before = heldBytes(diskOf(set).path);
          const result = await running.get(set)!.load(serialOf(diskOf(set)), {
            operation: "write",
            pattern: "once",
            blockBytes: 4 * KIB,
            jobs: 1,
            depth,
            milliseconds: 0,
            count,
          });
          const row = `${place}, ${depth} deep`;
          rates.add(row, set, result.requests / result.flushedSeconds);
          growths.add(row, set, (heldBytes(diskOf(set).path) - before) / (count * 4 * KIB));
        }
    }
  }
  for (const guest of running.values()) await guest.end();
  for (const all of disks.values()) for (const { path } of all) rmSync(path);
  vm.remove();
  const rows = places.flatMap(({ name }) => depths.map((depth) => `${name}, ${depth} deep`));
  printTable(
    `4 KiB random writes into a restored overlay on VIRT, ${count} with a flush: median of ${rounds} rounds`,
    [
      ["writes a second", ...SET_NAMES, "of the best", "of today's"],
      ...rows.map((row) => [
        row,
        ...SET_NAMES.map((set) => rates.value(row, set).toFixed(0)),
        atLeast(rates.besideBest(row), LEAST),
        atLeast(rates.beside(row, "today"), LEAST_OVERLAY),
      ]),
    ],
  );
  printTable(`Growth of that overlay, of ${formatSize(count * 4 * KIB)} written`, [
    ["", ...SET_NAMES, "limit"],
    ...rows.map((row) => [
      row,
      ...SET_NAMES.map((set) => times(growths.value(row, set))),
      within(`<= ${MOST_GROWTH}`, growths.value(row, "vm") <= MOST_GROWTH),
    ]),
  ]);
}

const heldBytes = (path: string): number => statSync(path).blocks * 512;

export async function benchDisks(options: DiskOptions): Promise<void> {
  const { cache, scratch, quick } = options;
  const guests = await buildGuests(join(cache, "../guests"));
  const share = await prepareShare(scratch);
  const places = findPlaces(scratch);
  await benchOverlays(guests, share, places, options);
  await benchSteady(guests, share, places, quick);
}
