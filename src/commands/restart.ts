import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";
import { stopArgs } from "./stop.ts";

export default defineCommand({
  meta: {
    name: "restart",
    description: "stop the VM, then start it in the background with the options of the last run",
  },
  args: {
    ...stopArgs,
    timeout: {
      ...stopArgs.timeout,
      description:
        "wait this long for the guest to power off, then kill it and do not start it again (124); default: 60",
    },
  },
  async setup({ args }) {
    const { parseStop } = await import("../lifecycle/stop.ts");
    parseStop(args.timeout, args.force);
  },
  async run({ args, data }) {
    const { parseStop, restartVm } = await import("../lifecycle/stop.ts");
    await restartVm(data as Context, parseStop(args.timeout, args.force));
  },
});
