import { closeSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { randomBytes } from "../lib/crypto.ts";
import { ownedByUs } from "../lib/trust.ts";
import { lockTemporary, removeAbandoned } from "../store/abandoned.ts";
import { fileError, removeQuietly } from "../store/files.ts";
import { PARTIAL } from "../store/layout.ts";

const PREFIX = `${PARTIAL}get-`;

/** An empty directory beside files that are being created, private and locked; removed at the end. */
export interface PartialDirectory extends Disposable {
  path: string;
}

/** Creates one, and removes those of killed processes. @throws 73 without permission */
export function openPartial(directory: string): PartialDirectory {
  removeAbandoned(directory, PREFIX, (stats) => stats.isDirectory() && ownedByUs(stats));
  const path = join(directory, PREFIX + randomBytes(4).toString("hex"));
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    throw fileError(`cannot write to ${directory}`, error);
  }
  const lock = lockTemporary(path);
  return {
    path,
    [Symbol.dispose]: () => {
      removeQuietly(path);
      if (lock !== undefined) closeSync(lock);
    },
  };
}
