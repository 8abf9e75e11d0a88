import { define } from "./define.ts";

export default define({
  meta: { name: "pause", description: "pause a running guest" },
  async run(context) {
    const { setPaused } = await import("../lifecycle/stop.ts");
    await setPaused(context, true);
  },
});
