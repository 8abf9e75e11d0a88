import { StatusError, VmError } from "../lib/errors.ts";
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
 * @throws 1 if the script fails, which has printed the reason
 */
export async function growInGuest(context: Context, serial: string): Promise<void> {
  const script = Buffer.from(`${PRELUDE}${JOB_FILES["grow-fs.job"]!}`);
  try {
    await execInGuest(context, ["bash", "-s", "--", serial], script);
  } catch (error) {
    if (!(error instanceof StatusError)) throw error;
    throw new VmError("other", `cannot grow the filesystem of ${serial} in the guest, for the reason above`, {
      cause: error,
    });
  }
}
