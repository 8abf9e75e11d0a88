import { join } from "node:path";
import { log } from "../lib/log.ts";
import { QmpClient } from "../qmp/client.ts";
import { WORK } from "../store/layout.ts";
import type { Workdir } from "../store/workdir.ts";
import { findGuestErrors, hasSpaceToResume } from "./guest-errors.ts";

const ANSWER_MS = 3000;

/**
 * Resumes a guest that qemu paused for lack of space, if there is enough now. For a detached guest the next command does
 * it, as no process waits for the space.
 */
export async function resumeIfSpace(work: Workdir): Promise<void> {
  const noSpace = findGuestErrors(work.dir).some(({ kind }) => kind === "no-space");
  if (!noSpace || !hasSpaceToResume(work.dir)) return;
  let qmp: QmpClient | undefined;
  try {
    qmp = await QmpClient.connect(join(work.dir, WORK.qmp), ANSWER_MS, ANSWER_MS);
    // A guest that was paused by a command stays paused (qapi/run-state.json, RunState).
    const { status } = await qmp.execute("query-status");
    if (status !== "io-error") return;
    await qmp.execute("cont");
    log.info(`space is available in ${work.dir}: guest resumed`);
  } catch {
    // The command's own use of qemu reports the error.
  } finally {
    qmp?.close();
  }
}
