/** Shared fixtures of the snapshot tests. */
import { chmodSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Sandbox } from "../fixtures/sandbox.ts";

/** Size of the disk in bytes. */
export const DISK_BYTES = 1 << 20;

/** Writes to the working disk like a guest, so that bitmaps record it. @param at in units of 64 KiB */
export function writeDisk(box: Sandbox, at: number, byte: number): void {
  const disk = join(box.work, "disk-0.img");
  const raw = join(box.top, "content");
  const content = readDisk(box, disk);
  writeFileSync(raw, content.fill(byte, at << 16, (at + 1) << 16));
  qemuImg("convert", "-n", "-f", "raw", "-O", "qcow2", raw, disk);
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

/** A VM with one disk, whose first 64 KiB are written. */
export async function written(conf = ""): Promise<Sandbox> {
  const box = new Sandbox(`MEMORY=64M\nCORES=1\nPORT=\nDISKS=(AHCI=1M)\n${conf}`);
  await box.ok("create", "G");
  writeDisk(box, 0, 1);
  return box;
}

/** Changes a file of a snapshot, ignoring permissions. */
export function edit(path: string, change: (bytes: Buffer) => string | Uint8Array): void {
  const { mode } = statSync(path);
  chmodSync(path, 0o600);
  writeFileSync(path, change(readFileSync(path)));
  chmodSync(path, mode & 0o777);
}
