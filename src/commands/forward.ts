import { FORWARD_ACTIONS } from "../lifecycle/choices.ts";
import { either } from "../lib/text.ts";
import { define } from "./define.ts";

export default define({
  meta: { name: "forward", description: "add or remove port forwards, also of a running VM, or list them" },
  args: {
    action: {
      type: "positional",
      choices: FORWARD_ACTIONS,
      required: true,
      description: either(FORWARD_ACTIONS),
    },
    rule: {
      type: "positional",
      many: true,
      required: false,
      description: "rules such as tcp:127.0.0.1:5555-:22; remove: also ports of this host",
    },
    temporary: { type: "boolean", description: "add, remove: store nothing; until the VM is off" },
    json: {
      type: "boolean",
      description:
        "list: print [{rule, protocol, hostAddress, hostPort, guestAddress, guestPort, running, nextRun}]",
    },
  },
  async parse(args) {
    const { parseForwardRequest } = await import("../lifecycle/forward.ts");
    return parseForwardRequest({ ...args, rule: args.rule as string[] | undefined });
  },
  async run(context, request) {
    const { runForward } = await import("../lifecycle/forward.ts");
    await runForward(context, request);
  },
});
