import { define } from "./define.ts";

export default define({
  meta: { name: "destroy", description: "remove the working files; keep snapshots" },
  args: {
    force: { type: "boolean", alias: "f", description: "kill a running guest or job first" },
  },
  async run(context, args) {
    const { destroyVm } = await import("../lifecycle/destroy.ts");
    await destroyVm(context, args.force === true);
  },
});
