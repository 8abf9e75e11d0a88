import { define } from "./define.ts";

export default define({
  meta: { name: "adopt", description: "adopt working files that another program made" },
  args: {
    "dry-run": { type: "boolean", alias: "n", description: "show what would be done, change nothing" },
  },
  async run(context, args) {
    const { adoptVm } = await import("../lifecycle/adopt.ts");
    await adoptVm(context, args["dry-run"] === true);
  },
});
