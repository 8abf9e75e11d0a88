import { join } from "node:path";
import { log } from "../lib/log.ts";
import { QmpClient } from "../qmp/client.ts";
import { WORK } from "../store/layout.ts";
import type { Present } from "../store/workdir.ts";
import { findGuestErrors, hasRoomToResume } from "./guest-errors.ts";

const ANSWER_MS = 3000;

/**
 * Resumes a guest that qemu paused for want of room, now that there is some: no command waits for a detached guest, so
 * the next one that uses it does.
 */
export async function resumeWithRoom(work: Present): Promise<void> {
  const noRoom = findGuestErrors(work.dir).some(({ kind }) => kind === "no-room");
  if (!noRoom || !hasRoomToResume(work.dir)) return;
  let qmp: QmpClient | undefined;
  try {
    qmp = await QmpClient.connect(join(work.dir, WORK.qmp), ANSWER_MS, ANSWER_MS);
    // A guest that was paused by a command stays paused (qapi/run-state.json, RunState).
    const { status } = await qmp.execute("query-status");
    if (status !== "io-error") return;
    await qmp.execute("cont");
    log.info(`there is room in ${work.dir} again: guest resumed`);
  } catch {
    // Whatever the command needs of qemu says what is wrong with it.
  } finally {
    qmp?.close();
  }
}
