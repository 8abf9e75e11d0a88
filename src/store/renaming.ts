import { isAbsolute, join } from "node:path";
import { toJson } from "../lib/json.ts";
import { readSmall } from "../lib/read-file.ts";
import { replaceFile, syncDirectory } from "./files.ts";
import { HOST } from "./layout.ts";
import { remove } from "./remove.ts";

/** A rename of a VM that is not complete (a redo log). */
export interface Renaming {
  /** Its HOSTDIR before. */
  from: string;
  /** GUESTNAME before. */
  guest: string;
}

const pathOf = (hostdir: string): string => join(hostdir, HOST.renaming);

/** The incomplete rename of a VM; undefined if there is none, or its record is malformed. */
export function readRenaming(hostdir: string): Renaming | undefined {
  try {
    const { from, guest } = JSON.parse(readSmall(pathOf(hostdir)) ?? "null") as Partial<Renaming>;
    const known = typeof from === "string" && isAbsolute(from) && !from.includes("\0");
    return known && typeof guest === "string" ? { from, guest } : undefined;
  } catch {
    return undefined;
  }
}

export const writeRenaming = (hostdir: string, renaming: Renaming): void =>
  replaceFile(pathOf(hostdir), toJson({ version: 1, ...renaming }));

/** The rename is complete, or has not begun. */
export function endRenaming(hostdir: string): void {
  remove(pathOf(hostdir));
  syncDirectory(hostdir);
}
