import { defineCommand } from "citty";
import type { Context } from "../services/context.ts";

export default defineCommand({
  meta: { name: "view", description: "open the running VM's screen, or say how to from home" },
  async run({ data }) {
    const { viewVm } = await import("../services/view.ts");
    await viewVm(data as Context);
  },
});
