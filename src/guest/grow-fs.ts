import { JOB_FILES } from "../rescue/assets.ts";
import type { Context } from "../vm/context.ts";
import { execInGuest } from "./exec.ts";

/** What the runner of jobs defines. */
const PRELUDE = `set -eu
fatal() { printf 'fatal: %s\\n' "$*" >&2; exit 1; }
run() { printf 'exec: %s\\n' "$*"; "$@"; }
INDIR=/nonexistent
`;

/**
 * Grows partition, LVM and filesystem of a disk in the running guest, by the script of the job grow-fs.
 * @param serial of the disk
 */
export const growInGuest = (context: Context, serial: string): Promise<void> =>
  execInGuest(context, ["bash", "-s", "--", serial], Buffer.from(`${PRELUDE}${JOB_FILES["grow-fs.job"]!}`));
