/** Shared fixtures of the snapshot tests. */
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildBox } from "../fixtures/built.ts";
import type { Sandbox } from "../fixtures/sandbox.ts";

/** Size of the disk in bytes. */
export const DISK_BYTES = 1 << 20;

/** Writes to the working disk like a guest, so that bitmaps record it. @param at in units of 64 KiB */
export function writeDisk(box: Sandbox, at: number, byte: number): void {
  const write = `write -q -P ${byte} ${at << 16} 64k`;
  const { exitCode, stderr } = Bun.spawnSync([
    "qemu-io",
    "-f",
    "qcow2",
    "-c",
    write,
    join(box.work, "disk-0.img"),
  ]);
  if (exitCode !== 0) throw new Error(`qemu-io ${write}: ${stderr.toString()}`);
}

/** The guest-visible contents of an image. */
export function readDisk(box: Sandbox, image: string = join(box.work, "disk-0.img")): Buffer {
  const raw = join(box.top, "seen");
  qemuImg("convert", "-U", "-f", "qcow2", "-O", "raw", image, raw);
  return readFileSync(raw);
}

/** The first byte of each 64 KiB that a guest reads, without trailing zeroes. */
export const seen = (box: Sandbox, image?: string): number[] => {
  const content = readDisk(box, image);
  const bytes = Array.from({ length: DISK_BYTES >> 16 }, (_, at) => content[at << 16]!);
  return bytes.slice(0, bytes.findLastIndex((byte) => byte !== 0) + 1);
};

export function qemuImg(...words: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(["qemu-img", ...words]);
  if (exitCode !== 0) throw new Error(`qemu-img ${words.join(" ")}: ${stderr.toString()}`);
}

/** A VM that `build` makes once. @param conf further settings */
export const buildOnce = (
  name: string,
  conf: string,
  build: (box: Sandbox) => Promise<void>,
): Promise<Sandbox> => buildBox(name, `MEMORY=64M\nCORES=1\nPORT=\nDISKS=(AHCI=1M)\n${conf}`, build);

/** A VM with one disk, whose first 64 KiB are written. */
export const written = (conf = ""): Promise<Sandbox> =>
  buildOnce("written", conf, async (box) => {
    await box.ok("create", "G");
    writeDisk(box, 0, 1);
  });

/** Changes a file of a snapshot, ignoring permissions. */
export function edit(path: string, change: (bytes: Buffer) => string | Uint8Array): void {
  const { mode } = statSync(path);
  chmodSync(path, 0o600);
  writeFileSync(path, change(readFileSync(path)));
  chmodSync(path, mode & 0o777);
}

/** An empty repository, of a program that stands in for restic. */
export function addRepository(box: Sandbox): void {
  box.program("restic", readFileSync(join(import.meta.dir, "../fixtures/restic.sh"), "utf8"));
  const repo = join(box.top, "repo");
  mkdirSync(repo);
  for (const path of ["password", "repo/password"]) box.write(join(box.top, path), "secret");
  // An older version pushed without it.
  chmodSync(join(box.top, "password"), 0o640);
  box.configure(`SNAPSHOT_REPO=${repo}\nSNAPSHOT_PASSWORD_FILE=${join(box.top, "password")}\n`);
}

/** A VM with S0 (gz), S1 (qcow2) and S2, its child; the guest's first bytes are 1, 12, 123, those of the working disk 1234. */
export const buildChain = (key: string, conf = "", guest = "G"): Promise<Sandbox> =>
  buildOnce(key, conf, async (box) => {
    await box.ok("create", guest);
    writeDisk(box, 0, 1);
    await box.ok("backup", "S0");
    for (const at of [1, 2]) {
      writeDisk(box, at, at + 1);
      await box.ok("backup", `S${at}`, "--format=qcow2");
    }
    writeDisk(box, 3, 4);
  });
