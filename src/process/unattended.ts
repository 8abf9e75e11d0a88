import { STDERR, STDIN } from "../lib/standard-streams.ts";
import { isTerminal } from "./terminal.ts";

/** Neither stdin nor stderr is a terminal: run with idle priority. */
export const isUnattended = (): boolean => !isTerminal(STDIN) && !isTerminal(STDERR);
