import { statSync } from "node:fs";
import { isAbsolute } from "node:path";
import type { RawSettings, SettingName } from "../config/schema.ts";
import { reasonOf } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import { macroOf } from "../machine/macros.ts";
import { parseShare } from "../machine/parse.ts";

/** Settings that name files or directories of this host which must be there. */
const PATHS: Partial<Record<SettingName, "file" | "directory">> = {
  SHARES: "directory",
  RESCUE_SHARES: "directory",
  NETBOOT_DIR: "directory",
  SPICE_TLS_DIR: "directory",
  PROFILES: "directory",
  LIBEXEC: "directory",
  OVMF_CODE: "file",
  OVMF_VARS: "file",
  RESCUE_ISO: "file",
  RESCUE_KERNEL: "file",
  RESCUE_VMLINUX: "file",
  RESCUE_INITRD: "file",
  SSHKEYS: "file",
  ISO: "file",
};

/**
 * Warns of stored paths that do not exist, or are of another kind: they may be there at the next run, a mounted disk for
 * instance. Relative paths are searched for elsewhere, and macros have no value yet.
 */
export function warnOfMissingPaths(values: RawSettings): void {
  for (const [name, kind] of Object.entries(PATHS) as [SettingName, "file" | "directory"][])
    for (const item of [values[name] ?? []].flat()) {
      const path = name.endsWith("SHARES") ? parseShare(item)?.path : item;
      if (path === undefined || !isAbsolute(path) || macroOf(path)) continue;
      const problem = findPathProblem(path, kind);
      if (problem !== undefined) log.warn(`${name}: cannot use ${path}: ${problem}`);
    }
}

function findPathProblem(path: string, wanted: "file" | "directory"): string | undefined {
  try {
    const isDirectory = statSync(path).isDirectory();
    if (isDirectory === (wanted === "directory")) return undefined;
    return isDirectory ? "it is a directory" : "it is not a directory";
  } catch (error) {
    return reasonOf(error);
  }
}
