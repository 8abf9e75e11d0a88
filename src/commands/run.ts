import { WAIT_EVENTS } from "../lifecycle/choices.ts";
import { define } from "./define.ts";

export default define({
  meta: { name: "run", description: "run the VM until the guest powers off (default command)" },
  args: {
    detach: {
      type: "boolean",
      alias: "b",
      description: "run the VM in the background",
    },
    wait: {
      type: "string",
      choices: WAIT_EVENTS,
      valueHint: "WHAT",
      description: "with --detach: wait for `ssh` or the guest `agent` (300 s, or -t), or for SECONDS",
    },
    ssh: { type: "boolean", description: "forward a free port of 127.0.0.1 to the guest's port 22" },
    boot: {
      type: "boolean",
      description: "boot a suspended VM, and discard its saved RAM",
    },
    timeout: {
      type: "string",
      alias: "t",
      valueHint: "SECONDS",
      description:
        "shut the guest down this long after its start, kill it STOP_TIMEOUT later (124); with --wait: how long to wait",
    },
    isoimage: {
      type: "positional",
      kind: "ISO image",
      required: false,
      description: "CD image to attach and boot once",
    },
  },
  async parse({ isoimage: iso, detach, ssh, boot, wait: what, timeout }, context) {
    const wait =
      what === undefined
        ? undefined
        : (await import("../lifecycle/wait.ts")).parseWait(what, detach === true);
    const typed = timeout ?? context.options.settings.TIMEOUT;
    const limitSeconds =
      typed === undefined
        ? undefined
        : (await import("../lifecycle/time-limit.ts")).resolveTimeLimit(context, timeout, {
            detach,
            waits: wait !== undefined,
          });
    return { iso, detach, ssh, boot, wait, limitSeconds };
  },
  async run(context, { wait, ...request }) {
    const { runVm } = await import("../lifecycle/run.ts");
    await runVm(context, { ...request, needsSsh: wait?.for === "ssh" });
    if (wait)
      await (await import("../lifecycle/wait.ts")).waitUntilReady(context, wait, request.limitSeconds);
  },
});
