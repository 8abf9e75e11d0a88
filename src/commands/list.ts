import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: {
    name: "list",
    description: "list all VMs below PROFILES, and others that you have created or run",
  },
  args: {
    json: { type: "boolean", description: "print an array of objects as `status --json` does" },
    quiet: {
      type: "boolean",
      alias: "q",
      description: "print directories only: names below PROFILES, paths elsewhere",
    },
  },
  async run({ args, data }) {
    const { listVms } = await import("../vm/list.ts");
    await listVms(data as Context, { json: args.json === true, names: args.quiet === true });
  },
});
