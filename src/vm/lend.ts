import { constants } from "node:fs";
import { join, sep } from "node:path";
import { realPath } from "../lib/read-file.ts";
import { lendFile } from "../qmp/send-descriptor.ts";
import { WORK } from "../store/layout.ts";
import { readMark } from "../store/mark.ts";
import type { Workdir } from "../store/workdir.ts";

/** Is the VM's qemu in a root of its own, as recorded at its start? */
export const isJailed = ({ dir }: Workdir): boolean => readMark(dir)?.run?.jail?.namespaces === true;

/**
 * The name by which the running qemu opens a file: its path, but in a jail a descriptor for what is outside its working
 * directory. Called under the VM's lock: no snapshot uses that monitor.
 * @throws QmpError, or a system error
 */
export async function nameForQemu(work: Workdir, path: string, access: "read" | "write"): Promise<string> {
  if (!isJailed(work) || realPath(path)?.startsWith(`${realPath(work.dir)}${sep}`)) return path;
  const flags = access === "read" ? constants.O_RDONLY : constants.O_RDWR;
  return lendFile(join(work.dir, WORK.backup), path, flags | constants.O_NONBLOCK);
}
