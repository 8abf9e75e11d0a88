import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "adopt", description: "take over working files that do not carry this program's mark" },
  args: {
    "dry-run": { type: "boolean", alias: "n", description: "show what would be done, and do nothing" },
  },
  async run({ args, data }) {
    const { adoptVm } = await import("../lifecycle/adopt.ts");
    await adoptVm(data as Context, args["dry-run"] === true);
  },
});
