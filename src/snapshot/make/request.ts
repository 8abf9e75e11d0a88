import { VmError } from "../../lib/errors.ts";
import { either } from "../../lib/text.ts";
import { parseSize } from "../../lib/size.ts";
import { SNAPSHOT_FORMATS } from "../../machine/types.ts";
import { parseSeconds } from "../../lib/seconds.ts";
import { validateSnapshotName } from "../../store/snapshots.ts";
import type { BackupRequest } from "./make.ts";

/** Parses the arguments of `backup`. @throws 64 */
export function parseBackupRequest(args: Record<string, unknown>): BackupRequest {
  // [compat] An empty name means no name.
  const name = (args.snapshot as string | undefined) || undefined;
  if (name !== undefined) validateSnapshotName(name);
  const format = SNAPSHOT_FORMATS.find((one) => one === args.format);
  if (args.format !== undefined && !format)
    throw new VmError("usage", `--format: '${String(args.format)}' is not allowed`, {
      hint: `allowed: ${either(SNAPSHOT_FORMATS)}`,
    });
  const rate = args["rate-limit"] as string | undefined;
  const rateLimit = rate === undefined ? undefined : parseSize(rate);
  if (rate !== undefined && rateLimit === undefined)
    throw new VmError("usage", `--rate-limit: '${rate}' is not allowed`, {
      hint: "allowed: bytes per second, such as 500K, 50M or 1G",
    });
  const wait = parseSeconds("lock-timeout", args["lock-timeout"] as string | undefined);
  return {
    name,
    description: args.description as string | undefined,
    format,
    rateLimit,
    full: args.full === true,
    ram: args.ram === true,
    lockWaitMs: wait === undefined ? undefined : wait * 1000,
  };
}
