import { define } from "./define.ts";

/** What `stop` and `restart` have in common. */
export const stopArgs = {
  timeout: {
    type: "string",
    alias: "t",
    valueHint: "SECONDS",
    description: "wait this long for the guest to power off, then kill it (124); default: STOP_TIMEOUT",
  },
  force: { type: "boolean", alias: "f", description: "kill the guest at once, as a power cut would" },
} as const;

export default define({
  meta: { name: "stop", description: "shut the guest down" },
  args: stopArgs,
  async parse(args, context) {
    const { parseStop } = await import("../lifecycle/stop.ts");
    const { findTypedLimit } = await import("../lifecycle/time-limit.ts");
    return parseStop(args.timeout ?? findTypedLimit(context), args.force);
  },
  async run(context, request) {
    const { stopVm } = await import("../lifecycle/stop.ts");
    await stopVm(context, request);
  },
});
