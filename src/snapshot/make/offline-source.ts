import { join } from "node:path";
import { ARCH } from "../../machine/arch.ts";
import { buildWritableNode } from "../../qemu/devices/image.ts";
import { buildBlocksArgv } from "../../qemu/blocks.ts";
import { FLUSH_STEPS } from "../../qemu/end.ts";
import { pathsOfDisks } from "../../qemu/jail-view.ts";
import { exitError, startQemu } from "../../qemu/session.ts";
import { listBlockNodes } from "../../qmp/block.ts";
import type { QmpClient } from "../../qmp/client.ts";
import type { TransactionAction } from "../../qmp/commands.ts";
import { QmpDisconnect, QmpError } from "../../qmp/errors.ts";
import { consistencyOf } from "../../store/mark-types.ts";
import { remove } from "../../store/remove.ts";
import type { Context } from "../../vm/context.ts";
import { planJail } from "../../vm/jail.ts";
import type { Vm } from "../../vm/find.ts";
import { HOST } from "../../store/layout.ts";
import type { Workdir } from "../../store/workdir.ts";
import type { Source, DiskSource, OpenDisk } from "../../live/disk-source.ts";

const SOCKET = "blocks.sock";
const LOG = "blocks.log";

/** Opens the disks of a VM that is off. @param staged a directory for a socket and a log */
export async function openOffline(
  context: Context,
  vm: Vm,
  work: Workdir,
  sources: readonly Source[],
  staged: string,
  low: boolean,
): Promise<DiskSource> {
  const argv = buildBlocksArgv(ARCH[vm.settings.QEMUARCH].binary, SOCKET);
  const logPath = join(staged, LOG);
  const { jail } = await planJail(context, vm.settings, {
    program: argv[0]!,
    directory: staged,
    further: [
      // It creates the images there.
      { path: staged, access: "write" },
      ...pathsOfDisks(sources.filter(({ disk }) => disk)),
      { path: join(vm.hostdir, HOST.backups), access: "read" },
    ],
  });
  const machine = await startQemu({
    argv,
    jail,
    low,
    directory: staged,
    monitor: join(staged, SOCKET),
    logPath,
  });
  const { qmp } = machine;
  try {
    const disks: OpenDisk[] = [];
    const own = sources.filter(({ disk }) => disk);
    for (const [index, { path, base }] of own.entries())
      await qmp.execute("blockdev-add", buildWritableNode(path, `disk${index}`, base));
    const nodes = await listBlockNodes(qmp);
    let closed: Promise<void> | undefined;
    for (const [index, { name }] of own.entries()) {
      const { node, virtualBytes, bitmaps } = nodes.find((item) => item.node === `disk${index}`)!;
      disks.push({ name, node, virtualBytes, bitmaps });
    }
    return {
      qmp,
      disks,
      addImage: async (node) => void (await qmp.execute("blockdev-add", node)),
      freeze: async (actions) => ({
        consistency: consistencyOf(work.mark),
        nodeOf: ({ node }) => node,
        select: async (_disk, only) => only,
        refused: await transact(qmp, actions),
      }),
      explain: async (error) =>
        error instanceof QmpDisconnect
          ? exitError("cannot copy the disks", await machine.end(FLUSH_STEPS), logPath, error)
          : error,
      close: () =>
        (closed ??= machine.end(FLUSH_STEPS).then(() => {
          for (const file of [SOCKET, LOG]) remove(join(staged, file));
        })),
    };
  } catch (error) {
    await machine.end(FLUSH_STEPS);
    throw error;
  }
}

/** @returns the error if qemu rejects the transaction */
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
