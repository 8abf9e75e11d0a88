import { define } from "./define.ts";

export default define({
  meta: { name: "adopt", description: "take over working files that do not carry this program's mark" },
  args: {
    "dry-run": { type: "boolean", alias: "n", description: "show what would be done, and do nothing" },
  },
  async run(context, args) {
    const { adoptVm } = await import("../lifecycle/adopt.ts");
    await adoptVm(context, args["dry-run"] === true);
  },
});
