import { findProgram } from "./exec.ts";

const PREFIXES = [
  ["nice", "-n", "10"],
  ["ionice", "-c", "3"],
] as const;

/**
 * Puts nice(1) and ionice(1) before a program, as far as they are here: it yields to everybody else. Not our own
 * priority: without root that cannot be raised again.
 */
export const gentle = (argv: readonly string[]): string[] => [
  ...PREFIXES.filter(([name]) => findProgram(name)).flat(),
  ...argv,
];
