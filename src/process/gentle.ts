import { findProgram } from "./exec.ts";

const PREFIXES = [
  ["nice", "-n", "10"],
  ["ionice", "-c", "3"],
] as const;

/**
 * Runs a program with low CPU and idle I/O priority, as far as nice(1) and ionice(1) are installed. This program keeps its
 * own priority: only root could raise it again.
 */
export const gentle = (argv: readonly string[]): string[] => [
  ...PREFIXES.filter(([name]) => findProgram(name)).flat(),
  ...argv,
];
