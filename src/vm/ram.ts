import { closeSync, fstatSync } from "node:fs";
import { commandLine } from "../lib/command-line.ts";
import { isNoSpace, reasonOf, VmError } from "../lib/errors.ts";
import { warnOnce } from "../lib/log.ts";
import { formatSize } from "../lib/size.ts";
import type { Machine, RamFile } from "../machine/types.ts";
import { allocateHoles, createMemoryFile } from "../process/memory-file.ts";
import { firstFdBehind } from "../qemu/devices/nic.ts";
import type { OpenState } from "../qemu/ram-state.ts";
import { allocatedBytes, freeBytes } from "../store/files.ts";

/** The RAM of a machine, and the files that its qemu inherits (`QemuOptions.lastFds`). */
export interface OpenRam extends Disposable {
  ram: RamFile | undefined;
  fds: number[];
}

const MIB = 2 ** 20;

/** Options of the user's own that decide on the RAM: qemu takes no other then. */
const DECIDES = /^--?(numa|mem-path|mem-prealloc)$/;
const decidesOnRam = (words: readonly string[]): boolean =>
  words.some(
    (word, index) =>
      DECIDES.test(word) ||
      (/^--?(machine|M)$/.test(words[index - 1] ?? "") && word.includes("memory-backend")),
  );

/** The first descriptor behind those of the cards and of swtpm. */
export const ramDescriptor = ({ nics, tpm }: Pick<Machine, "nics" | "tpm">): number =>
  firstFdBehind(nics) + (tpm ? 1 : 0);

/**
 * The RAM of a new machine: shared memory, which another process can copy at once. It is in memory only (memfd_create(2)), as
 * dirty pages of a file on a disk would be written to it all the time.
 * @param shared SHARED_RAM
 */
export function openRam(
  machine: Pick<Machine, "nics" | "tpm" | "memoryMiB" | "extraArgs">,
  shared: boolean,
): OpenRam {
  if (!shared || decidesOnRam(machine.extraArgs))
    return { ram: undefined, fds: [], [Symbol.dispose]: () => {} };
  try {
    const fd = createMemoryFile("guest-ram", machine.memoryMiB * MIB);
    return { ram: fileOf(machine), fds: [fd], [Symbol.dispose]: () => closeSync(fd) };
  } catch (error) {
    warnOnce(
      `the guest's RAM cannot be shared memory, so that the VM cannot be suspended: ${reasonOf(error)}`,
    );
    return { ram: undefined, fds: [], [Symbol.dispose]: () => {} };
  }
}

/**
 * The RAM of a resumed machine: the saved file itself, mapped, so that nothing is read before the guest runs. What the guest
 * changes is written back to it in the course of time (vm.dirty_writeback_centisecs), as it is to a disk; with a private
 * mapping, as of a linked clone, it is in memory only.
 */
export const openResumedRam = (
  machine: Pick<Machine, "nics" | "tpm">,
  { ram, devices, shared }: OpenState,
): OpenRam => ({
  ram: fileOf(machine, shared),
  fds: [ram, devices],
  [Symbol.dispose]: () => {},
});

/**
 * Has every page of a saved RAM file its place on the disk: a guest that writes to a page without one, on a full filesystem,
 * dies of SIGBUS.
 * @throws 73 without space; the state can be resumed later
 */
export function allocateRam(workdir: string, { ram }: OpenState): void {
  const stats = fstatSync(ram);
  const needed = stats.size - allocatedBytes(stats);
  if (needed <= 0) return;
  const free = freeBytes(workdir);
  const noSpace = (cause?: unknown): VmError =>
    new VmError(
      "cannotCreate",
      `cannot resume the suspended VM: no space for its RAM in ${workdir}: ${formatSize(needed)} needed, ${formatSize(free)} free`,
      {
        cause,
        hint: `free some space there\nor boot it, and lose its RAM, as after a power cut: ${commandLine("run", "--boot")}`,
      },
    );
  if (free < needed) throw noSpace();
  try {
    allocateHoles(ram);
  } catch (error) {
    throw isNoSpace(error) ? noSpace(error) : error;
  }
}

const fileOf = (machine: Pick<Machine, "nics" | "tpm">, shared = true): RamFile => ({
  path: `/proc/self/fd/${ramDescriptor(machine)}`,
  shared,
});
