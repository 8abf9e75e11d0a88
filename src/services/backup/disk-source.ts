import { join } from "node:path";
import { ARCH } from "../../machine/arch.ts";
import { gentle } from "../../process/gentle.ts";
import { buildImageNode } from "../../qemu/devices/image.ts";
import { buildBlocksArgv } from "../../qemu/blocks.ts";
import { launchQemu, type RunningMachine } from "../../qemu/launch.ts";
import { listBlockNodes, type Bitmap } from "../../qmp/block.ts";
import type { QmpClient } from "../../qmp/client.ts";
import { quit } from "../../qmp/commands.ts";
import { createFile } from "../../store/files.ts";
import { consistencyOf, type Consistency } from "../../store/mark.ts";
import type { Present, Vm } from "../open.ts";
import type { Source } from "./sources.ts";

/** A disk that a qemu has open. */
export interface OpenDisk {
  /** `disk-0.img` */
  name: string;
  /** Where the guest writes; bitmaps are here. */
  node: string;
  virtualBytes: number;
  bitmaps: Bitmap[];
}

/** One moment of all disks. */
export interface Moment {
  consistency: Consistency;
  /** From where a job reads the disk as it was then. */
  nodeOf(disk: OpenDisk): string;
  /** Makes a bitmap of a disk usable there. @returns its name */
  lend(disk: OpenDisk, bitmap: string): Promise<string>;
  /** Small files as they were then, by name: their paths. */
  files: ReadonlyMap<string, string>;
}

/** Disks in a qemu: the running VM's, or one of our own that has nothing else. */
export interface DiskSource {
  qmp: QmpClient;
  disks: OpenDisk[];
  /**
   * Takes the moment.
   * @param inMoment what is done in qemu at that very time: the guest does nothing then
   */
  take(inMoment: () => Promise<void>): Promise<Moment>;
  close(): Promise<void>;
}

const SOCKET = "blocks.sock";

/** Opens the disks of a VM that is off. @param staged a directory for a socket and a log */
export async function openOffline(
  vm: Vm,
  work: Present,
  sources: readonly Source[],
  staged: string,
  low: boolean,
): Promise<DiskSource> {
  const argv = buildBlocksArgv(ARCH[vm.settings.QEMUARCH].binary, SOCKET);
  const logPath = join(staged, "blocks.log");
  const machine = await launchQemu({
    argv: low ? gentle(argv) : argv,
    directory: staged,
    monitor: join(staged, SOCKET),
    logFd: createFile(logPath),
    logPath,
    onEvent: () => {},
  });
  const { qmp } = machine;
  try {
    const disks: OpenDisk[] = [];
    const own = sources.filter(({ disk }) => disk);
    for (const [index, { path, base }] of own.entries())
      await qmp.execute("blockdev-add", {
        ...buildImageNode({ format: "qcow2", path, base }),
        "node-name": `disk${index}`,
        "read-only": false,
        file: { driver: "file", filename: path },
      });
    const nodes = await listBlockNodes(qmp);
    for (const [index, { name }] of own.entries()) {
      const { node, virtualBytes, bitmaps } = nodes.find((item) => item.node === `disk${index}`)!;
      disks.push({ name, node, virtualBytes, bitmaps });
    }
    return {
      qmp,
      disks,
      take: async (inMoment) => {
        await inMoment();
        return {
          consistency: consistencyOf(work.mark),
          nodeOf: ({ node }) => node,
          lend: async (_disk, bitmap) => bitmap,
          files: new Map(),
        };
      },
      close: () => end(machine),
    };
  } catch (error) {
    await end(machine);
    throw error;
  }
}

/** Ends it in order: it writes the bitmaps into the images when it closes them. */
async function end(machine: RunningMachine): Promise<void> {
  await quit(machine.qmp);
  await machine.ended;
}
