import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "status", description: "show what the VM is and does" },
  args: { json: { type: "boolean", description: "for programs" } },
  async run({ args, data }) {
    const { showStatus } = await import("../vm/list.ts");
    await showStatus(data as Context, args.json === true);
  },
});
