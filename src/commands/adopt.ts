import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "adopt", description: "adopt working files that another program made" },
  args: {
    "dry-run": { type: "boolean", alias: "n", description: "show what would be done, change nothing" },
  },
  async run({ args, data }) {
    const { adoptVm } = await import("../lifecycle/adopt.ts");
    await adoptVm(data as Context, args["dry-run"] === true);
  },
});
