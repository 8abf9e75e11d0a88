import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "destroy", description: "remove the working files; keep snapshots" },
  args: {
    force: { type: "boolean", alias: "f", description: "kill a running guest or job first" },
  },
  async run({ args, data }) {
    const { destroyVm } = await import("../lifecycle/destroy.ts");
    await destroyVm(data as Context, args.force === true);
  },
});
