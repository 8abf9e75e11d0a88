import { join } from "node:path";
import { start, type Child } from "../process/exec.ts";
import { readSmall } from "../store/files.ts";
import { SNAPSHOT } from "../store/layout.ts";

/** The files that SHA256SUMS vouches for. */
export function readSums(dir: string): Set<string> {
  const text = readSmall(join(dir, SNAPSHOT.sums)) ?? "";
  return new Set(text.split("\n").map((line) => line.replace(/^\\?[0-9a-f]{64} [ *]/, "")));
}

/**
 * Compares every file with SHA256SUMS; what is wrong stands on its stdout, a line each.
 * @param wrap puts a program before it
 */
export const startSums = (dir: string, wrap = (argv: string[]): string[] => argv): Child =>
  start(wrap(["sha256sum", "--check", "--strict", "--quiet", SNAPSHOT.sums]), { cwd: dir });
