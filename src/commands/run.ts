import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "run", description: "run the VM until the guest powers off (default command)" },
  args: {
    detach: {
      type: "boolean",
      alias: "b",
      description: "run the VM in the background",
    },
    wait: {
      type: "string",
      valueHint: "WHAT",
      description: "with --detach: wait for `ssh` or the guest `agent` (300 s, or -t), or for SECONDS",
    },
    ssh: { type: "boolean", description: "forward a free port of 127.0.0.1 to the guest's port 22" },
    isoimage: { type: "positional", required: false, description: "CD image to attach and boot once" },
  },
  async setup({ args }) {
    if (args.wait === undefined) return;
    const { parseWait } = await import("../lifecycle/wait.ts");
    parseWait(args.wait, args.detach === true);
  },
  async run({ args, data }) {
    const { runVm } = await import("../lifecycle/run.ts");
    const { isoimage: iso, detach, ssh, wait } = args;
    await runVm(data as Context, { iso, detach, ssh, needsSsh: wait === "ssh" });
    if (wait === undefined) return;
    const { parseWait, waitUntilReady } = await import("../lifecycle/wait.ts");
    await waitUntilReady(data as Context, parseWait(wait, true));
  },
});
