import { define } from "./define.ts";

export default define({
  meta: { name: "destroy", description: "remove the working files; snapshots stay" },
  args: {
    force: { type: "boolean", alias: "f", description: "end a running guest first" },
  },
  async run(context, args) {
    const { destroyVm } = await import("../lifecycle/destroy.ts");
    await destroyVm(context, args.force === true);
  },
});
