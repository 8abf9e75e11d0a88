import { define } from "./define.ts";

export default define({
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
  async run(context, args) {
    const { listVms } = await import("../vm/list.ts");
    await listVms(context, { json: args.json === true, names: args.quiet === true });
  },
});
