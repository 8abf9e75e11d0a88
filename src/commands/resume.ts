import { define } from "./define.ts";

export default define({
  meta: { name: "resume", description: "resume a paused guest" },
  async run(context) {
    const { setPaused } = await import("../lifecycle/stop.ts");
    await setPaused(context, false);
  },
});
