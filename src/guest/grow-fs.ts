import { StatusError } from "../lib/errors.ts";
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
 * @throws its status, after it has printed the reason
 */
export async function growInGuest(context: Context, serial: string): Promise<void> {
  const script = Buffer.from(`${PRELUDE}${JOB_FILES["grow-fs.job"]!}`);
  try {
    await execInGuest(context, ["bash", "-s", "--", serial], script);
  } catch (error) {
    if (!(error instanceof StatusError)) throw error;
    const what = `cannot grow the filesystem of ${serial} in the guest: status ${error.exitCode}, see above`;
    throw new StatusError(what, error.exitCode);
  }
}
