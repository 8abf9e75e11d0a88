import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "man", description: "show the manual page" },
  async run({ data }) {
    const { showManual } = await import("../host/manual.ts");
    await showManual(data as Context);
  },
});
