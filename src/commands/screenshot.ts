import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "screenshot", description: "save a picture of the running VM's screen" },
  args: {
    file: {
      type: "positional",
      required: false,
      description: "a PNG file, or - for stdout; default: GUESTNAME-YYYYMMDD-HHMMSS.png",
    },
    show: { type: "boolean", description: "show it in the terminal; then a file is written if one is named" },
  },
  async run({ args, data }) {
    const { takeScreenshot } = await import("../guest/screenshot.ts");
    await takeScreenshot(data as Context, args.file, args.show === true);
  },
});
