import { STDERR, STDIN } from "../lib/standard-streams.ts";
import { isTerminal } from "./terminal.ts";

/** Nobody waits at a terminal: others go first. */
export const isUnattended = (): boolean => !isTerminal(STDIN) && !isTerminal(STDERR);
