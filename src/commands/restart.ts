import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";
import { stopArgs } from "./stop.ts";

export default defineCommand({
  meta: {
    name: "restart",
    description: "stop the VM, and start it in the background as it was started before",
  },
  args: {
    ...stopArgs,
    timeout: {
      ...stopArgs.timeout,
      description:
        "how long it may take; then it is ended as by a power cut and not started again, and the status is 124; default: 60",
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
