import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

/** What `stop` and `restart` have in common. */
export const stopArgs = {
  timeout: {
    type: "string",
    valueHint: "SECONDS",
    description: "wait this long for the guest to power off, then kill it (124); default: 60",
  },
  force: { type: "boolean", alias: "f", description: "kill the guest at once, as a power cut would" },
} as const;

export default defineCommand({
  meta: { name: "stop", description: "shut the guest down" },
  args: stopArgs,
  async setup({ args }) {
    const { parseStop } = await import("../lifecycle/stop.ts");
    parseStop(args.timeout, args.force);
  },
  async run({ args, data }) {
    const { parseStop, stopVm } = await import("../lifecycle/stop.ts");
    await stopVm(data as Context, parseStop(args.timeout, args.force));
  },
});
