import { statSync } from "node:fs";
import { resolve } from "node:path";
import { similarAction } from "../lib/action.ts";
import { commandLine } from "../lib/command-line.ts";
import { usageError, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { findCdDrive, findInsertedCd, type CdDrive } from "../live/attached.ts";
import { interruption, throwIfInterrupted } from "../process/signals.ts";
import { buildCdNode, CD_DEVICE, CD_NODES } from "../qemu/devices/disk.ts";
import { listBlockNodes, removeNode } from "../qmp/block.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { ArgsOf } from "../qmp/commands.ts";
import type { Context } from "../vm/context.ts";
import type { Workdir } from "../store/workdir.ts";
import type { Vm } from "../vm/find.ts";
import { nameForQemu, takeBack } from "../live/lend.ts";
import { Media, NoSuchIso } from "../vm/media.ts";
import { storeSettings } from "../vm/store-settings.ts";
import { withMachine } from "./disks/open.ts";
import { noteNextRun } from "./disks/plug.ts";

/** What to do with the CD drive. */
export interface CdRequest {
  /** The CD image to insert, as typed; undefined: none. */
  iso: string | undefined;
  /** Open the drive even if the guest has locked it. */
  force: boolean;
}

/** @throws 64 unless there is either an image or `--eject` */
export function parseCdRequest(args: {
  image?: string | undefined;
  eject?: boolean | undefined;
  force?: boolean | undefined;
}): CdRequest {
  if ((args.image === undefined) !== (args.eject === true))
    throw usageError(
      args.eject ? "cd: --eject takes no IMAGE" : "cd: IMAGE is missing",
      `insert a CD: ${commandLine("cd", "IMAGE")}\ntake it out: ${commandLine("cd", "--eject")}`,
    );
  return { iso: args.image, force: args.force === true };
}

/**
 * Changes the CD in the drive of the running machine, and stores it for the next runs.
 * @throws 66 for a missing image, 75 if the guest has locked the drive
 */
export async function changeCd(context: Context, { iso, force }: CdRequest): Promise<void> {
  const command = iso === undefined ? "eject the CD" : "change the CD";
  await withMachine(context, command, async ({ vm, work, qmp }) => {
    const path = iso === undefined ? undefined : await findCd(context, vm, iso);
    const what = path === undefined ? "the CD drive is empty" : `the guest has ${path}`;
    const drive = qmp && (await findCdDrive(qmp));
    const isEmpty = !qmp || (await findInsertedCd(qmp)) === undefined;
    if (path === undefined && isEmpty && vm.settings.ISO === "")
      return log.info("the CD drive is empty already");
    if (drive) await changeMedium(work, qmp, drive, path, { command, force });
    storeSettings(vm, command, {
      ISO: path === undefined ? "" : nameToStore(context, vm, iso!, path),
      KEEPCD: path === undefined ? "" : "1",
    });
    if (qmp && !drive) noteNextRun(what, "the running machine has no CD drive that can be changed");
    else if (path !== undefined) log.success(`inserted ${path}`);
    else log.success(qmp && isEmpty ? "the CD drive is empty, and stays so in later runs" : "ejected the CD");
  });
}

/** @throws 66 for a missing image, with a hint for a word that means something else */
async function findCd(context: Context, vm: Vm, iso: string): Promise<string> {
  try {
    return await new Media(context, vm).findIso(iso);
  } catch (error) {
    if (!(error instanceof NoSuchIso)) throw error;
    const meant = similarAction(iso, ["eject", "remove", "list"]);
    if (meant === undefined) throw error;
    const hint =
      meant === "list"
        ? `show the CD: ${commandLine("status")}`
        : `take the CD out: ${commandLine("cd", "--eject")}`;
    throw new VmError(error.code, error.message, { hint: `${hint}\n${error.hint}`, cause: error });
  }
}

/** [compat] As typed: each run searches for it again. Relative to the current directory it would not be found there. */
const nameToStore = ({ cwd }: Context, { hostdir }: Vm, typed: string, path: string): string =>
  resolve(hostdir, typed) === path || resolve(cwd, typed) !== path ? typed : path;

/** Changes the CD. The new one is opened first: if that fails, the old one stays. */
async function changeMedium(
  work: Workdir,
  qmp: QmpClient,
  drive: CdDrive,
  path: string | undefined,
  opening: { command: string; force: boolean },
): Promise<void> {
  const old = drive.inserted?.["node-name"];
  const nodes = await listBlockNodes(qmp);
  const open = new Set(nodes.map(({ node }) => node));
  // What a killed command has left.
  for (const node of CD_NODES) if (open.has(node) && node !== old) await removeNode(qmp, node);
  const next = CD_NODES.find((node) => node !== old)!;
  if (path !== undefined) {
    const blockDevice = statSync(path).isBlockDevice();
    const medium = { path: await nameForQemu(work.dir, path, "read"), blockDevice };
    await qmp.execute("blockdev-add", buildCdNode(medium, next) as ArgsOf<"blockdev-add">);
  }
  try {
    await openTray(qmp, drive, opening);
  } catch (error) {
    if (path !== undefined) await removeNode(qmp, next).catch(() => {});
    throw error;
  }
  if (old !== undefined) await qmp.execute("blockdev-remove-medium", { id: CD_DEVICE });
  if (path !== undefined) await qmp.execute("blockdev-insert-medium", { id: CD_DEVICE, "node-name": next });
  await qmp.execute("blockdev-close-tray", { id: CD_DEVICE });
  if (old === undefined) return;
  await removeNode(qmp, old);
  await takeBack(qmp, work.dir, nodes.find(({ node }) => node === old)?.file);
}

/** How long the guest may take to open a drive that it has locked. */
const TRAY_MS = 10_000;

/** @throws 75 if the guest has locked the drive */
async function openTray(
  qmp: QmpClient,
  { tray_open }: CdDrive,
  { command, force }: { command: string; force: boolean },
): Promise<void> {
  if (tray_open === true) return;
  const { promise, resolve: settle } = Promise.withResolvers<boolean>();
  qmp.onEvent(({ event, data }) => {
    if (event === "DEVICE_TRAY_MOVED" && data.id === CD_DEVICE && data["tray-open"]) settle(true);
  });
  const stop = (): void => settle(false);
  const timer = setTimeout(stop, TRAY_MS);
  interruption.addEventListener("abort", stop);
  try {
    // If it is locked, qemu asks the guest to open it.
    await qmp.execute("blockdev-open-tray", { id: CD_DEVICE, force });
    if ((await findCdDrive(qmp))?.tray_open !== true && !(await promise)) {
      throwIfInterrupted();
      throw new VmError("busy", `cannot ${command}: the guest has locked the drive`, {
        hint: `unmount the CD in the guest, or open the drive regardless: --force`,
      });
    }
  } finally {
    clearTimeout(timer);
    interruption.removeEventListener("abort", stop);
  }
}
