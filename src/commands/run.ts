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
      valueHint: "WHAT",
      description: "with --detach: wait for `ssh` or the guest `agent` (300 s, or -t), or for SECONDS",
    },
    ssh: { type: "boolean", description: "forward a free port of 127.0.0.1 to the guest's port 22" },
    isoimage: { type: "positional", required: false, description: "CD image to attach and boot once" },
  },
  async parse({ isoimage: iso, detach, ssh, wait }) {
    if (wait === undefined) return { iso, detach, ssh, wait };
    const { parseWait } = await import("../lifecycle/wait.ts");
    return { iso, detach, ssh, wait: parseWait(wait, detach === true) };
  },
  async run(context, { wait, ...request }) {
    const { runVm } = await import("../lifecycle/run.ts");
    await runVm(context, { ...request, needsSsh: wait?.for === "ssh" });
    if (wait) await (await import("../lifecycle/wait.ts")).waitUntilReady(context, wait);
  },
});
