/** Snapshots of the format qcow2 beside pigz by hand, restic and borg: the same disk, the same run. */
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatSize } from "../../src/lib/size.ts";
import { Guest, makeDisk, runTimed as run, seconds, type Options } from "./bench-snapshots.ts";
import { median, printTable, within } from "./bench-table.ts";

/** How a guest changes a disk: pieces of this size, spread all over it. */
const PIECE_KIB = 256;

/** Changes one hundredth of the data, in pieces all over the disk. */
async function change(disk: string, mebibytes: number, noise: string): Promise<void> {
  const pieces = Math.ceil((mebibytes * 1024) / 100 / PIECE_KIB);
  await Bun.$`dd if=/dev/urandom of=${noise} bs=${PIECE_KIB}k count=1 status=none`;
  const words: string[] = [];
  for (let piece = 0; piece < pieces; piece++) {
    const at = Math.floor(((piece + 0.5) * mebibytes * 1024) / pieces);
    words.push("-c", `write -q -s ${noise} ${at}k ${PIECE_KIB}k`);
  }
  await Bun.$`qemu-io -f qcow2 ${words} ${disk}`.quiet();
}

/** What a file or a tree occupies. */
async function sizeOf(path: string): Promise<number> {
  return Number.parseInt(await Bun.$`du -sb ${path}`.text(), 10);
}

class Rows {
  readonly #times = new Map<string, number[]>();
  readonly #sizes = new Map<string, number>();

  add(way: string, took: number, bytes?: number): void {
    this.#times.set(way, [...(this.#times.get(way) ?? []), took]);
    if (bytes !== undefined) this.#sizes.set(way, bytes);
  }
  time = (way: string): number => median(this.#times.get(way)!);
  size(way: string): string {
    const bytes = this.#sizes.get(way);
    return bytes === undefined ? "" : formatSize(bytes);
  }
  ways = (): string[] => [...this.#times.keys()];
}

export async function benchImages({ cache, scratch, mebibytes, rounds }: Options): Promise<void> {
  const source = join(cache, `disk-${mebibytes}.qcow2`);
  await makeDisk(source, 0, mebibytes);
  const rows = new Rows();
  const noise = join(scratch, "noise");
  const out = join(scratch, "out");
  const env = {
    ...process.env,
    HOME: `${scratch}/home`,
    RESTIC_PASSWORD: "bench",
    BORG_PASSPHRASE: "bench",
    BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: "yes",
  } as Record<string, string>;
  const peers = ["restic", "borg"].filter((name) => Bun.which(name));
  for (let round = 1; round <= rounds; round++) {
    console.error(`qcow2 and its peers, round ${round} of ${rounds} …`);
    const guest = new Guest(scratch, "images", [source]);
    const disk = guest.disk(0);
    const gz = join(scratch, "hand.gz");
    rows.add("pigz -9", (await run(["pigz", "-9", "-c"], { from: disk, to: gz })).seconds, statSync(gz).size);
    rows.add("unpigz", (await run(["unpigz", "-c"], { from: gz, to: out })).seconds);
    for (const path of [gz, out]) rmSync(path);
    const full = (await guest.vm("backup", "F", "--format=qcow2")).seconds;
    rows.add("vm backup --format qcow2", full, await sizeOf(guest.path("backups/F")));
    await guest.vm("restore", "F");
    // After a restore, and after a backup: both know what has changed.
    await change(guest.disk(0), mebibytes, noise);
    const first = (await guest.vm("backup", "I1", "--format=qcow2")).seconds;
    rows.add("… after a change of 1 %", first, await sizeOf(guest.path("backups/I1")));
    await change(guest.disk(0), mebibytes, noise);
    rows.add("… and of 1 % more", (await guest.vm("backup", "I2", "--format=qcow2")).seconds);
    rows.add("vm restore", (await guest.vm("restore", "F")).seconds);
    rows.add("vm restore, incremental", (await guest.vm("restore", "I2")).seconds);
    rows.add("vm restore --copy", (await guest.vm("restore", "I2", "--copy")).seconds);
    for (const peer of peers) {
      const repository = join(scratch, peer);
      const [init, save, fetch] =
        peer === "restic"
          ? [
              ["restic", "-q", "-r", repository, "init"],
              ["restic", "-q", "-r", repository, "backup", guest.disk(0)],
              ["restic", "-q", "-r", repository, "restore", "latest", "--target", out],
            ]
          : [
              ["borg", "init", "-e", "repokey", repository],
              ["borg", "create", "-C", "zstd", `${repository}::{now:%f}`, guest.disk(0)],
              [
                "sh",
                "-c",
                `mkdir -p "$1"; cd "$1"; borg extract "$2::$(borg list --last 1 --format '{archive}' "$2")"`,
                "-",
                out,
                repository,
              ],
            ];
      await run(init!, { env });
      rows.add(`${peer}, all`, (await run(save!, { env })).seconds, await sizeOf(repository));
      await change(guest.disk(0), mebibytes, noise);
      rows.add(`${peer}, after a change of 1 %`, (await run(save!, { env })).seconds);
      rows.add(`${peer}, restore`, (await run(fetch!, { env })).seconds);
      for (const path of [out, repository]) rmSync(path, { recursive: true, force: true });
    }
    guest.remove();
  }
  const limits: Record<string, (took: number) => string> = {
    "vm backup --format qcow2": (took) => beside("pigz -9", took, 12),
    "… after a change of 1 %": (took) => beside("pigz -9", took, 500),
    "… and of 1 % more": (took) => beside("pigz -9", took, 500),
    "vm restore": (took) => within("<= 0.2 s", took <= 0.2),
    "vm restore, incremental": (took) => within("<= 0.2 s", took <= 0.2),
  };
  function beside(way: string, took: number, least: number): string {
    const times = rows.time(way) / took;
    return within(`${times.toFixed(1)}× (>= ${least})`, times >= least);
  }
  printTable(
    `A qcow2 disk of ${formatSize(statSync(source).size)} (${mebibytes} MiB of files): median of ${rounds}`,
    [
      ["way", "time", "size", "beside pigz -9"],
      ...rows
        .ways()
        .map((way) => [way, seconds(rows.time(way)), rows.size(way), limits[way]?.(rows.time(way)) ?? ""]),
    ],
  );
}

/** Whole snapshots of a tiny disk, by the thousand: does each command's time grow no faster than their number? */
export async function benchMany(scratch: string): Promise<void> {
  const tiny = join(scratch, "tiny.qcow2");
  await Bun.$`qemu-img create -q -f qcow2 ${tiny} 1M`;
  await Bun.$`qemu-io -f qcow2 -c ${"write -q -P 7 0 512k"} ${tiny}`.quiet();
  const rows: string[][] = [];
  for (const count of [100, 1000, 4000]) {
    const guest = new Guest(scratch, "many", [tiny]);
    await guest.vm("backup", "S0", "--format=qcow2");
    for (let index = 1; index < count; index++) await copySnapshot(guest.path("backups"), index, count);
    const row: string[] = [String(count)];
    for (const words of [
      ["snapshots"],
      ["backup", "more", "--format=qcow2"],
      ["backup", "whole", "--format=qcow2", "--full"],
      ["verify", "--all", "--quiet"],
      ["prune", "--keep-last=10"],
    ]) {
      const took = (await guest.vm(...words)).seconds;
      row.push(`${(took * 1000).toFixed(0)} ms`);
    }
    rows.push(row);
    guest.remove();
  }
  printTable("Many snapshots of a tiny disk, once each", [
    ["snapshots", "list", "backup incremental", "backup of all", "verify --all", "prune of all but 10"],
    ...rows,
  ]);
}

/** The snapshot S0 once more, made `index` hours after it (all in the past). */
async function copySnapshot(backups: string, index: number, count: number): Promise<void> {
  const to = join(backups, `S${index}`);
  await Bun.$`cp -a ${join(backups, "S0")} ${to}`;
  const path = join(to, "manifest.json");
  const text = readFileSync(path, "utf8");
  const made = new Date(Date.now() - (count - index) * 3_600_000).toISOString();
  rmSync(path);
  writeFileSync(path, text.replace(/"made": "[^"]*"/, `"made": "${made}"`));
  const sums = join(to, "SHA256SUMS");
  if (!existsSync(sums)) return;
  const hash = new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");
  const lines = readFileSync(sums, "utf8");
  rmSync(sums);
  writeFileSync(sums, lines.replace(/^[0-9a-f]{64}(?= [ *]manifest\.json$)/m, hash));
}
