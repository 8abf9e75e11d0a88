/** Nobody waits at a terminal: others go first. */
export const isUnattended = (): boolean => process.stdin.isTTY !== true && process.stderr.isTTY !== true;
