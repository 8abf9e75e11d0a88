import { stopArgs } from "./stop.ts";
import { define } from "./define.ts";

export default define({
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
  async parse(args) {
    const { parseStop } = await import("../lifecycle/stop.ts");
    return parseStop(args.timeout, args.force);
  },
  async run(context, request) {
    const { restartVm } = await import("../lifecycle/stop.ts");
    await restartVm(context, request);
  },
});
