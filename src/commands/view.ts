import { define } from "./define.ts";

export default define({
  meta: { name: "view", description: "open the running VM's screen, or print how to from another machine" },
  async run(context) {
    const { viewVm } = await import("../guest/view.ts");
    await viewVm(context);
  },
});
