import { readFileSync, statSync } from "node:fs";

/** Unit of sizes in sysfs, whatever the device's sector size. */
const SECTOR_BYTES = 512;

/** `8:1` of a device number (gnu_dev_major and gnu_dev_minor of glibc's sysmacros). */
export function formatDeviceNumber(device: number): string {
  const number = BigInt(device);
  const major = ((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn);
  const minor = (number & 0xffn) | ((number >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}

/** Identity of a block device: its number, and its size if sysfs has it. */
export function identifyBlockDevice(path: string): { device: number; bytes?: number } {
  const device = statSync(path).rdev;
  try {
    const sectors = Number(readFileSync(`/sys/dev/block/${formatDeviceNumber(device)}/size`, "utf8"));
    return { device, bytes: sectors * SECTOR_BYTES };
  } catch {
    return { device };
  }
}
