import { defineCommand } from "citty";
import type { Context } from "../services/context.ts";

export default defineCommand({
  meta: { name: "run", description: "run the VM until the guest powers itself off (the default command)" },
  args: {
    isoimage: { type: "positional", required: false, description: "CD image to attach and boot once" },
  },
  async run({ args, data }) {
    const { runVm } = await import("../services/run.ts");
    await runVm(data as Context, args.isoimage);
  },
});
