/** Lets a signal end this script by process.exit, so that what it tidies up on exit is done. */
export function exitOnSignals(): void {
  for (const [signal, status] of [
    ["SIGHUP", 129],
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)
    process.on(signal, () => process.exit(status));
}
