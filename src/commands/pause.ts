import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "pause", description: "pause a running guest" },
  async run({ data }) {
    const { setPaused } = await import("../lifecycle/stop.ts");
    await setPaused(data as Context, true);
  },
});
