import { define } from "./define.ts";

export default define({
  meta: { name: "screenshot", description: "save the running VM's screen as PNG" },
  args: {
    file: {
      type: "positional",
      required: false,
      description: "file to write, or - for stdout; default: GUESTNAME-YYYYMMDD-HHMMSS.png",
    },
    show: {
      type: "boolean",
      description: "show the image in the terminal; write a file only if one is named",
    },
  },
  async run(context, args) {
    const { takeScreenshot } = await import("../guest/screenshot.ts");
    await takeScreenshot(context, args.file, args.show === true);
  },
});
