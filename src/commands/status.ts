import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "status", description: "show the state of the VM" },
  args: { json: { type: "boolean", description: "print one JSON object" } },
  async run({ args, data }) {
    const { showStatus } = await import("../vm/list.ts");
    await showStatus(data as Context, args.json === true);
  },
});
