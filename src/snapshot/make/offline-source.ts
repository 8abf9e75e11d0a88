import { join } from "node:path";
import { ARCH } from "../../machine/arch.ts";
import { gentle } from "../../process/gentle.ts";
import { interruption } from "../../process/signals.ts";
import { buildImageNode } from "../../qemu/devices/image.ts";
import { buildBlocksArgv } from "../../qemu/blocks.ts";
import { launchQemu, type RunningMachine } from "../../qemu/launch.ts";
import { listBlockNodes, type TransactionAction } from "../../qmp/block.ts";
import { QmpError, type QmpClient } from "../../qmp/client.ts";
import { quit } from "../../qmp/commands.ts";
import { createFile, remove } from "../../store/files.ts";
import { consistencyOf } from "../../store/mark.ts";
import type { Vm } from "../../vm/open.ts";
import type { Present } from "../../store/workdir.ts";
import type { Source, DiskSource, OpenDisk } from "../../live/disk-source.ts";

const SOCKET = "blocks.sock";
const LOG = "blocks.log";

/** Opens the disks of a VM that is off. @param staged a directory for a socket and a log */
export async function openOffline(
  vm: Vm,
  work: Present,
  sources: readonly Source[],
  staged: string,
  low: boolean,
): Promise<DiskSource> {
  const argv = buildBlocksArgv(ARCH[vm.settings.QEMUARCH].binary, SOCKET);
  const logPath = join(staged, LOG);
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
    let closed: Promise<void> | undefined;
    for (const [index, { name }] of own.entries()) {
      const { node, virtualBytes, bitmaps } = nodes.find((item) => item.node === `disk${index}`)!;
      disks.push({ name, node, virtualBytes, bitmaps });
    }
    return {
      qmp,
      disks,
      take: async (actions) => ({
        consistency: consistencyOf(work.mark),
        nodeOf: ({ node }) => node,
        lend: async (_disk, bitmap) => bitmap,
        refused: await transact(qmp, actions),
      }),
      close: () =>
        (closed ??= end(machine).then(() => {
          for (const file of [SOCKET, LOG]) remove(join(staged, file));
        })),
    };
  } catch (error) {
    await end(machine);
    throw error;
  }
}

/** @returns why qemu refuses it */
async function transact(
  qmp: QmpClient,
  actions: readonly TransactionAction[],
): Promise<QmpError | undefined> {
  try {
    if (actions.length > 0) await qmp.execute("transaction", { actions });
    return undefined;
  } catch (error) {
    if (error instanceof QmpError) return error;
    throw error;
  }
}

/** How long a qemu without a guest may take to write its bitmaps and go, after a stop signal. */
const HURRY_MS = 5000;

/** Ends it in order: it writes the bitmaps into the images when it closes them. */
async function end(machine: RunningMachine): Promise<void> {
  let limit: ReturnType<typeof setTimeout> | undefined;
  const hurry = (): void => {
    limit = setTimeout(() => machine.kill("SIGKILL"), HURRY_MS);
  };
  interruption.addEventListener("abort", hurry);
  if (interruption.aborted) hurry();
  await quit(machine.qmp);
  await machine.ended;
  clearTimeout(limit);
  interruption.removeEventListener("abort", hurry);
}
