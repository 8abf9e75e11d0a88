import { define } from "./define.ts";

export default define({
  meta: { name: "suspend", description: "save the running guest's RAM and end qemu; run resumes it" },
  async run(context) {
    const { suspendVm } = await import("../lifecycle/suspend.ts");
    await suspendVm(context);
  },
});
