import { join } from "node:path";
import { sha256 } from "../lib/crypto.ts";
import { JOB_FILES, RUNNER } from "./assets.ts";

/** In LIBEXEC. [compat] `rescue-stage3`: the autorun script for a rescue CD that is made by hand. */
export const LIBEXEC_FILES: Readonly<Record<string, string>> = {
  ...Object.fromEntries(Object.entries(JOB_FILES).map(([name, text]) => [join("jobs", name), text])),
  "rescue-stage3": RUNNER,
};

/** A new version of the program has new data, and finds its own. */
export const dataName = (): string => `data-${sha256(JSON.stringify(LIBEXEC_FILES)).slice(0, 16)}`;
