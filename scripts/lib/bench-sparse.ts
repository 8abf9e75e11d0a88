/** A disk of 1 TiB beside one of 1 GiB with the same data; live full snapshots of an overlay beside a standalone disk. */
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatSize } from "../../src/lib/size.ts";
import { Guest, makeDisk, seconds, type Options } from "./bench-snapshots.ts";
import { environment, median, printTable, within } from "./bench-table.ts";

const SIZES = { "1 GiB": 2 ** 30, "1 TiB": 2 ** 40 };
type Size = keyof typeof SIZES;

/** 1 MiB of data in this many places, all over the disk. */
const PLACES = 4;
const MAX_TIME = 1.5;
const MAX_ROOM = 2;
/** Of an overlay, beside a standalone disk. */
const MAX_OVERLAY = 1.2;

const RUN = ["--memory=64M", "--port=", "run", "--detach"];

/** Times by action and column. */
class Times {
  readonly #rows = new Map<string, Map<string, number[]>>();

  add(action: string, column: string, took: number): void {
    const row = this.#rows.get(action) ?? new Map<string, number[]>();
    this.#rows.set(action, row.set(column, [...(row.get(column) ?? []), took]));
  }
  get actions(): string[] {
    return [...this.#rows.keys()];
  }
  of = (action: string, column: string): number => median(this.#rows.get(action)!.get(column)!);
}

async function makeSparse(path: string, bytes: number, noise: string): Promise<void> {
  if (existsSync(path)) return;
  const piece = 2 ** 20 / PLACES;
  const words = Array.from({ length: PLACES }, (_, place) => [
    "-c",
    `write -q -s ${noise} ${(place * bytes) / PLACES} ${piece}`,
  ]).flat();
  await Bun.$`head -c ${piece} /dev/urandom > ${noise}`;
  await Bun.$`qemu-img create -q -f qcow2 ${path} ${bytes}`;
  await Bun.$`qemu-io -f qcow2 ${words} ${path}`.quiet();
}

/** Changes 128 KiB of such a disk. */
const change = (disk: string): Promise<unknown> =>
  Bun.$`qemu-io -f qcow2 -c ${"write -q -P 7 1M 64k"} -c ${"write -q -z 0 64k"} ${disk}`.quiet();

/** What the disks in a snapshot occupy. */
const roomOf = (guest: Guest, snapshot: string): number => {
  const dir = guest.path(`backups/${snapshot}`);
  const disks = readdirSync(dir).filter((name) => name.startsWith("disk-"));
  return disks.reduce((sum, name) => sum + statSync(join(dir, name)).blocks * 512, 0);
};

/** All that reads whole disks, once. */
async function measureSize(guest: Guest, size: Size, times: Times, room: Times): Promise<void> {
  const time = async (action: string, ...words: string[]): Promise<void> =>
    times.add(action, size, (await guest.vm(...words)).seconds);
  const weigh = (action: string, bytes: number): void => room.add(action, size, bytes);
  await time("backup", "backup", "--format=qcow2", "F");
  weigh("backup", roomOf(guest, "F"));
  await change(guest.disk(0));
  await time("backup, incremental", "backup", "--format=qcow2", "I");
  weigh("backup, incremental", roomOf(guest, "I"));
  await change(guest.disk(0));
  await time("backup --format=gz", "backup", "--format=gz", "G");
  weigh("backup --format=gz", roomOf(guest, "G"));
  await guest.vm("backup", "--format=qcow2", "I2");
  await guest.vm("backup", "--format=qcow2", "--full", "F2");
  await time("verify", "verify", "F");
  await time("verify --deep", "verify", "--deep", "F");
  await time("snapshots diff", "snapshots", "diff", "F", "I");
  await time("snapshots diff, unrelated", "snapshots", "diff", "F", "F2");
  await time("restore --copy", "restore", "--copy", "F");
  weigh("restore --copy", statSync(guest.disk(0)).blocks * 512);
  await time("restore, gz", "restore", "G");
  weigh("restore, gz", statSync(guest.disk(0)).blocks * 512);
  await time("snapshots push", "snapshots", "push", "G", "F2");
  await time("snapshots rm --merge", "snapshots", "rm", "--merge", "I");
  await time("prune, which merges", "prune", "--keep-last=1");
  weigh("prune, which merges", roomOf(guest, "F2"));
  await guest.vm("restore", "--copy", "F2");
  await guest.vm(...RUN);
  await time("backup, live", "backup", "--format=qcow2", "--full", "L");
  weigh("backup, live", roomOf(guest, "L"));
  await time("backup --format=gz, live", "backup", "--format=gz", "LG");
  weigh("backup --format=gz, live", roomOf(guest, "LG"));
  await guest.vm("stop", "--force");
}

/** A restic repository as the settings of all VMs here have it. */
async function makeRepository(scratch: string): Promise<void> {
  const password = join(scratch, "password");
  writeFileSync(password, "bench", { mode: 0o600 });
  const repository = join(scratch, "repository");
  await Bun.$`restic init -q --repo ${repository} --password-file ${password}`.env(environment(scratch));
  const settings = join(scratch, "home/.config");
  mkdirSync(settings, { recursive: true, mode: 0o700 });
  writeFileSync(
    join(settings, "vm.conf"),
    `SNAPSHOT_REPO='${repository}'\nSNAPSHOT_PASSWORD_FILE='${password}'\n`,
  );
}

async function benchSizes({ scratch, rounds }: Options): Promise<void> {
  const times = new Times();
  const room = new Times();
  const sizes = Object.keys(SIZES) as Size[];
  await makeRepository(scratch);
  for (let round = 1; round <= rounds; round++) {
    console.error(`1 TiB beside 1 GiB, round ${round} of ${rounds} …`);
    for (const size of sizes) {
      const disk = join(scratch, `sparse-${SIZES[size]}.qcow2`);
      await makeSparse(disk, SIZES[size], join(scratch, "noise"));
      const guest = new Guest(scratch, "sparse", [disk]);
      await measureSize(guest, size, times, room);
      guest.remove();
    }
  }
  const compare = (of: Times, action: string, format: (value: number) => string, most: number): string[] => {
    const [small, large] = sizes.map((size) => of.of(action, size)) as [number, number];
    const ratio = large / small;
    return [format(small), format(large), within(`${ratio.toFixed(2)}× (<= ${most})`, ratio <= most)];
  };
  printTable(`1 MiB of data in ${PLACES} places: median of ${rounds}`, [
    ["command", ...sizes, "time", ...sizes, "room"],
    ...times.actions.map((action) => [
      action,
      ...compare(times, action, seconds, MAX_TIME),
      ...(room.actions.includes(action) ? compare(room, action, formatSize, MAX_ROOM) : ["", "", ""]),
    ]),
  ]);
}

/** Live full snapshots of a disk that is standalone, restored from a qcow2 snapshot, and linked. */
async function benchOverlays(options: Options): Promise<void> {
  const { cache, scratch, mebibytes, rounds } = options;
  const files = join(cache, `disk-${mebibytes}.qcow2`);
  await makeDisk(files, 0, mebibytes);
  const grown = join(scratch, "grown.qcow2");
  copyFileSync(files, grown);
  await Bun.$`qemu-img resize -q -f qcow2 ${grown} 30G`;
  const disks = {
    "1 MiB of data on 1 TiB": join(scratch, `sparse-${SIZES["1 TiB"]}.qcow2`),
    [`${mebibytes} MiB of files on 30 GiB`]: grown,
  };
  const times = new Times();
  for (let round = 1; round <= rounds; round++)
    for (const [what, disk] of Object.entries(disks)) {
      console.error(`live, ${what}, round ${round} of ${rounds} …`);
      const back = async (guest: Guest, column: string): Promise<void> => {
        await guest.vm(...RUN);
        times.add(what, column, (await guest.vm("backup", "--format=qcow2", "--full", column)).seconds);
        await guest.vm("stop", "--force");
      };
      const guest = new Guest(scratch, "alone", [disk]);
      await back(guest, "standalone");
      await guest.vm("restore", "standalone");
      await back(guest, "restored");
      const linked = new Guest(scratch, "linked", [], disk);
      await back(linked, "linked");
      for (const one of [guest, linked]) one.remove();
    }
  rmSync(grown);
  printTable(`Live full snapshots: median of ${rounds}`, [
    ["disk", "standalone", "restored", "", "linked", ""],
    ...times.actions.map((what) => {
      const alone = times.of(what, "standalone");
      const beside = ["restored", "linked"].flatMap((column) => {
        const ratio = times.of(what, column) / alone;
        return [
          seconds(times.of(what, column)),
          within(`${ratio.toFixed(2)}× (<= ${MAX_OVERLAY})`, ratio <= MAX_OVERLAY),
        ];
      });
      return [what, seconds(alone), ...beside];
    }),
  ]);
}

export async function benchSparse(options: Options): Promise<void> {
  await benchSizes(options);
  await benchOverlays(options);
}
