/** Files for a running qemu that is in a root of its own: what is not there is passed by descriptor. */
import { constants } from "node:fs";
import { join } from "node:path";
import type { QmpClient } from "../qmp/client.ts";
import { LENT, type ArgsOf } from "../qmp/commands.ts";
import { lendFile } from "../qmp/send-descriptor.ts";
import { WORK } from "../store/layout.ts";
import { readMark } from "../store/mark.ts";

type Monitor = typeof WORK.qmp | typeof WORK.monitor | typeof WORK.backup;
type AddedNode = ArgsOf<"blockdev-add">;

/** Does qemu see only what was there at its start, as recorded then? */
export const isJailed = (workdir: string): boolean => readMark(workdir)?.run?.jail?.namespaces === true;

/**
 * The name by which the VM's qemu opens a file that it did not have at its start. Called under the VM's lock, with a
 * connection to another monitor, as qemu closes what it was sent with the last one.
 * @param monitor to which this process is not connected
 * @throws QmpError, or a system error
 */
export async function nameForQemu(
  workdir: string,
  path: string,
  access: "read" | "write",
  monitor: Monitor = WORK.backup,
): Promise<string> {
  if (!isJailed(workdir)) return path;
  const flags = access === "read" ? constants.O_RDONLY : constants.O_RDWR;
  return lendFile(join(workdir, monitor), path, flags | constants.O_NONBLOCK);
}

/** One that a program of the user's does not hold, unless the command of a run in the foreground has it. */
const findFreeMonitor = (workdir: string): Monitor =>
  readMark(workdir)?.run?.detached === true ? WORK.monitor : WORK.qmp;

/** Has qemu close what it was handed of a file that it no longer uses. */
export async function takeBack(qmp: QmpClient, workdir: string, path: string | undefined): Promise<void> {
  if (path === undefined || !isJailed(workdir)) return;
  for (const { "fdset-id": id, fds } of await qmp.execute("query-fdsets"))
    if (fds.some(({ opaque }) => opaque === path)) await qmp.execute("remove-fd", { "fdset-id": id });
}

/**
 * `blockdev-add` of images of a snapshot.
 * @param qmp connected to another monitor than `monitor`, by default to that for snapshots
 */
export async function addSnapshotNode(
  qmp: QmpClient,
  workdir: string,
  node: AddedNode,
  monitor = findFreeMonitor(workdir),
): Promise<void> {
  if (!isJailed(workdir)) return void (await qmp.execute("blockdev-add", node));
  const lent: string[] = [];
  const given = (await lendAll(workdir, node, lent, monitor)) as AddedNode;
  try {
    await qmp.execute("blockdev-add", given);
  } finally {
    // The node has copies of them.
    for (const name of lent) await qmp.execute("remove-fd", { "fdset-id": Number(name.slice(LENT.length)) });
  }
}

/** The same node with other names for its files. */
async function lendAll(workdir: string, node: unknown, lent: string[], monitor: Monitor): Promise<unknown> {
  if (Array.isArray(node)) {
    const items: unknown[] = [];
    for (const item of node) items.push(await lendAll(workdir, item, lent, monitor));
    return items;
  }
  if (typeof node !== "object" || node === null) return node;
  const fields: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(node)) {
    if (name !== "filename") fields[name] = await lendAll(workdir, value, lent, monitor);
    else {
      const access = "read-only" in node && node["read-only"] === true ? "read" : "write";
      const given = await nameForQemu(workdir, String(value), access, monitor);
      if (given !== value) lent.push(given);
      fields[name] = given;
    }
  }
  return fields;
}
