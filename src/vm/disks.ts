import { statSync } from "node:fs";
import { resolve } from "node:path";
import type { Settings } from "../config/schema.ts";
import { formatSize } from "../lib/size.ts";
import type { AttachedDisk } from "../live/attached.ts";
import { findAttached } from "../live/same-file.ts";
import { expandMacro, type MacroValues } from "../machine/macros.ts";
import type { DiskBus, ImageFormat, ImageRequest } from "../machine/types.ts";
import { inspectImage } from "../qemu/image-header.ts";
import { allocatedBytes } from "../store/files.ts";
import { diskNumber } from "../store/layout.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Vm } from "./find.ts";

/** Settings that decide the numbers of disks. */
export type NumberSettings = Pick<Settings, "IMAGES" | "LAYOUT" | "IMAGE_NUMBERS" | "CONTROLLER_PLACES">;

/**
 * Pure: numbers of disks, by which the guest finds them. In layout 1 an own disk has that of its name, so that the
 * others keep their numbers when it is removed; any other image has the recorded one, else that of its position, or the next free one.
 */
export function numberImages({ IMAGES, LAYOUT, IMAGE_NUMBERS, CONTROLLER_PLACES }: NumberSettings): number[] {
  if (LAYOUT === 0) return IMAGES.map((_, index) => index);
  const numbers = IMAGES.map(({ path }) => diskNumber(path));
  const taken = new Set(numbers);
  IMAGES.forEach(({ path }, index) => {
    const recorded = IMAGE_NUMBERS.find((item) => item.path === path)?.number;
    if (numbers[index] !== undefined || recorded === undefined || taken.has(recorded)) return;
    numbers[index] = recorded;
    taken.add(recorded);
  });
  for (const { place } of CONTROLLER_PLACES) taken.add(place);
  return numbers.map((number, index) => {
    if (number !== undefined) return number;
    let free = index;
    while (taken.has(free)) free++;
    taken.add(free);
    return free;
  });
}

/** An image of the settings. */
export interface StoredDisk {
  request: ImageRequest;
  number: number;
  /** Absolute; undefined if its macro has no value. */
  path: string | undefined;
  /** One of the VM's own disks, `disk-N.img` in WORKDIR. */
  own: boolean;
}

/** The images of the settings, in boot order. */
export function findStoredDisks({ settings }: Vm, work: Workdir, macros: MacroValues): StoredDisk[] {
  const numbers = numberImages(settings);
  return settings.IMAGES.map((request, index) => {
    const expanded = expandMacro(request.path, macros);
    return {
      request,
      number: numbers[index]!,
      path: expanded === undefined ? undefined : resolve(work.dir, expanded),
      own: diskNumber(request.path) !== undefined,
    };
  });
}

/** A disk of the machine, as printed by `disk list --json`, and by `status --json` in `images`. */
export interface MachineDisk {
  /** Decides its place. */
  number: number;
  /** As in IMAGES; of one that is attached for this run only, its path. */
  image: string;
  bus: DiskBus | null;
  /** Null if unknown. */
  format: ImageFormat | null;
  virtualBytes: number | null;
  /** Allocated on the host; null for a block device or a missing file. */
  actualBytes: number | null;
  /** The running guest has it; null if the VM is off. */
  attached: boolean | null;
  /** In the VM's settings: the next run has it. */
  stored: boolean;
  /** Limits (DISK_LIMITS); absent: none. */
  iops?: number;
  bytesPerSecond?: number;
}

/**
 * All disks of the machine: those of the settings, in boot order, then those of this run only.
 * @param attached to the running machine; undefined if the VM is off
 * @param mayRead images whose files are opened
 */
export function listMachineDisks(
  { settings }: Vm,
  stored: readonly StoredDisk[],
  attached: readonly AttachedDisk[] | undefined,
  mayRead: (path: string) => boolean = () => true,
): MachineDisk[] {
  const limitsOf = (number: number): Pick<MachineDisk, "iops" | "bytesPerSecond"> => {
    const { number: _, ...limits } = settings.DISK_LIMITS.find((one) => one.number === number) ?? { number };
    return limits;
  };
  const known = stored.map(({ request, number, path }): MachineDisk => {
    const running = attached && path !== undefined ? findAttached(attached, path) : undefined;
    const recorded = settings.IMAGE_FORMATS.find((item) => item.path === path)?.format;
    const format = request.format ?? recorded;
    const read = path !== undefined && mayRead(path) ? inspectImage(path, format) : undefined;
    return {
      number: running ? numberOf(running) : number,
      image: request.path,
      bus: request.bus,
      format: (running?.driver as ImageFormat | undefined) ?? format ?? read?.format ?? null,
      virtualBytes: running?.virtualBytes ?? read?.virtualBytes ?? null,
      actualBytes: running || read ? bytesOnHost(path!) : null,
      attached: attached ? running?.plugged === true : null,
      stored: true,
      ...limitsOf(running ? numberOf(running) : number),
    };
  });
  const temporary = (attached ?? [])
    .filter((disk) => !stored.some(({ path }) => path !== undefined && findAttached([disk], path)))
    .map((disk): MachineDisk => ({
      number: numberOf(disk),
      image: disk.path,
      bus: disk.bus ?? null,
      format: disk.driver as ImageFormat,
      virtualBytes: disk.virtualBytes,
      actualBytes: bytesOnHost(disk.path),
      attached: disk.plugged,
      stored: false,
      ...limitsOf(numberOf(disk)),
    }));
  return [...known, ...temporary];
}

/** `500 IOPS, 20 MiB/s`; empty: no limit. */
export const formatDiskLimits = ({
  iops,
  bytesPerSecond,
}: {
  iops?: number;
  bytesPerSecond?: number;
}): string =>
  [iops && `${iops} IOPS`, bytesPerSecond && `${formatSize(bytesPerSecond)}/s`].filter(Boolean).join(", ");

const numberOf = ({ node }: AttachedDisk): number => Number(node.slice("disk".length));

function bytesOnHost(path: string): number | null {
  try {
    const stats = statSync(path);
    return stats.isFile() ? allocatedBytes(stats) : null;
  } catch {
    return null;
  }
}
