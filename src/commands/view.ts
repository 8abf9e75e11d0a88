import { define } from "./define.ts";

export default define({
  meta: { name: "view", description: "open the running VM's screen, or say how to from home" },
  async run(context) {
    const { viewVm } = await import("../guest/view.ts");
    await viewVm(context);
  },
});
