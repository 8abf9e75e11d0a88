import { define } from "./define.ts";

export default define({
  meta: {
    name: "list",
    description: "show all VMs: those below PROFILES, and others that you have made or run",
  },
  args: {
    json: { type: "boolean", description: "for programs: a list of what `status --json` shows" },
    quiet: {
      type: "boolean",
      alias: "q",
      description: "directories only: names below PROFILES, paths elsewhere",
    },
  },
  async run(context, args) {
    const { listVms } = await import("../vm/list.ts");
    await listVms(context, { json: args.json === true, names: args.quiet === true });
  },
});
