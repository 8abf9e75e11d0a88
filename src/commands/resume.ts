import { defineCommand } from "citty";
import type { Context } from "../services/context.ts";

export default defineCommand({
  meta: { name: "resume", description: "resume a paused guest" },
  async run({ data }) {
    const { setPaused } = await import("../services/stop.ts");
    await setPaused(data as Context, false);
  },
});
