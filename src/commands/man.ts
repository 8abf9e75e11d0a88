import { defineCommand } from "citty";
import type { Context } from "../services/context.ts";

export default defineCommand({
  meta: { name: "man", description: "show the manual page" },
  async run({ data }) {
    const { showManual } = await import("../services/manual.ts");
    await showManual(data as Context);
  },
});
