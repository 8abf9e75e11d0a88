import { defineCommand } from "citty";
import type { Context } from "../services/context.ts";

export default defineCommand({
  meta: { name: "pause", description: "pause a running guest" },
  async run({ data }) {
    const { setPaused } = await import("../services/stop.ts");
    await setPaused(data as Context, true);
  },
});
