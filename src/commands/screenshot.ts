import { define } from "./define.ts";

export default define({
  meta: { name: "screenshot", description: "save a picture of the running VM's screen" },
  args: {
    file: {
      type: "positional",
      required: false,
      description: "a PNG file, or - for stdout; default: GUESTNAME-YYYYMMDD-HHMMSS.png",
    },
    show: { type: "boolean", description: "show it in the terminal; then a file is written if one is named" },
  },
  async run(context, args) {
    const { takeScreenshot } = await import("../guest/screenshot.ts");
    await takeScreenshot(context, args.file, args.show === true);
  },
});
