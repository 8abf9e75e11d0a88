import { stopArgs } from "./stop.ts";
import { define } from "./define.ts";

export default define({
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
  async parse(args, context) {
    const { parseStop } = await import("../lifecycle/stop.ts");
    const { findTypedLimit } = await import("../lifecycle/time-limit.ts");
    return parseStop(args.timeout ?? findTypedLimit(context), args.force);
  },
  async run(context, request) {
    const { restartVm } = await import("../lifecycle/stop.ts");
    await restartVm(context, request);
  },
});
