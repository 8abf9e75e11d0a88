import { closeSync, readSync } from "node:fs";
import { constants, gunzipSync } from "node:zlib";
import { VmError } from "../lib/errors.ts";
import { openForReading } from "../lib/read-file.ts";

/** At most 4 MiB of content are in so much of a gzip file. */
const PIECE = 4096;

/**
 * The first bytes of the content of a gzip file; fewer of a shorter one.
 * @throws 74 if it is no gzip file
 */
export function readGzHead(path: string, bytes: number): Buffer {
  const fd = openForReading(path);
  try {
    for (let length = PIECE; ; length *= 2) {
      const packed = Buffer.alloc(length);
      const count = readSync(fd, packed, 0, length, 0);
      // Where the input ends, what there is so far is the result.
      const head = gunzipSync(packed.subarray(0, count), { finishFlush: constants.Z_SYNC_FLUSH });
      if (head.length >= bytes || count < length) return head.subarray(0, bytes);
    }
  } catch (error) {
    throw new VmError("io", `cannot read ${path}: it is no gzip file`, { cause: error });
  } finally {
    closeSync(fd);
  }
}
