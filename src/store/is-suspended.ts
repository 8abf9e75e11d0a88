import { join } from "node:path";
import { lstatOf } from "../lib/read-file.ts";
import { WORK } from "./layout.ts";

/** Has this VM a saved state? */
export const isSuspended = (workdir: string): boolean => lstatOf(join(workdir, WORK.suspended)) !== undefined;
