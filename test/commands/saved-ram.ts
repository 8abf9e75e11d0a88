/** Snapshots with RAM for tests without real qemu. */
import { chmodSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { writeSums } from "../../src/snapshot/make/describe.ts";
import type { Sandbox } from "../fixtures/sandbox.ts";
import { buildOnce, edit, writeDisk } from "./snapshots.ts";

export const RAM_BYTES = 4 << 20;
/** Looks like an image with a backing file: whatever a guest has in its RAM is only data. */
export const RAM = Buffer.concat([
  Buffer.from("QFI\xfb\0\0\0\x03\0\0\0\0\0\0\x02\0\0\0\0\x0b", "latin1"),
  Buffer.alloc(492),
  Buffer.from("/etc/passwd"),
]);
export const DEVICES = Buffer.from("the state of the devices");

/** Adds RAM to a snapshot, as `backup --ram` does. */
export async function addRam(box: Sandbox, name: string, qemu = "7.2.22"): Promise<void> {
  const dir = box.path("backups", name);
  const manifest = JSON.parse(box.read("backups", name, "manifest.json"));
  const raw = manifest.format === "qcow2";
  const ram = join(dir, raw ? "state.ram" : "state.ram.gz");
  const devices = gzipSync(DEVICES);
  writeFileSync(ram, RAM);
  if (raw) truncateSync(ram, RAM_BYTES);
  else writeFileSync(ram, gzipSync(Buffer.concat([RAM, Buffer.alloc(RAM_BYTES - RAM.length)])));
  chmodSync(ram, 0o400);
  writeFileSync(join(dir, "state.devices.gz"), devices);
  const storedBytes = statSync(ram).size;
  manifest.version = 3;
  manifest.files.push(
    {
      name: "state.ram",
      file: raw ? "state.ram" : "state.ram.gz",
      bytes: RAM_BYTES,
      allocatedBytes: 4096,
      storedBytes,
    },
    {
      name: "state.devices",
      file: "state.devices.gz",
      bytes: DEVICES.length,
      allocatedBytes: 4096,
      storedBytes: devices.length,
    },
  );
  manifest.machine = {
    qemu,
    accel: "tcg",
    processor: "0".repeat(32),
    cd: { path: null, first: false },
    run: { started: "2026-11-30T00:00:00.000Z", detached: true, forwards: [], typed: {} },
  };
  edit(join(dir, "manifest.json"), () => JSON.stringify(manifest));
  rmSync(join(dir, "SHA256SUMS"));
  await writeSums(dir);
}

/** S0 with RAM, of the format of `conf`; the guest's first byte is 1. */
export const withRam = (conf = "SNAPSHOT_FORMAT=qcow2\n"): Promise<Sandbox> =>
  buildOnce("ram", conf, async (box) => {
    await box.ok("create", "G");
    writeDisk(box, 0, 1);
    await box.ok("backup");
    await addRam(box, "S0");
  });
