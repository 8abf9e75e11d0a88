import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "view", description: "open the running VM's screen, or print how to from another machine" },
  async run({ data }) {
    const { viewVm } = await import("../guest/view.ts");
    await viewVm(data as Context);
  },
});
