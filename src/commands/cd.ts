import { define } from "./define.ts";

export default define({
  meta: { name: "cd", description: "insert a CD image, or take it out, running or off" },
  args: {
    image: {
      type: "positional",
      kind: "ISO image",
      required: false,
      description: "CD image, searched for as run does",
    },
    eject: { type: "boolean", description: "take the CD out" },
    force: { type: "boolean", description: "open the drive even if the guest has locked it" },
  },
  async parse(args) {
    const { parseCdRequest } = await import("../lifecycle/cd.ts");
    return parseCdRequest(args);
  },
  async run(context, request) {
    const { changeCd } = await import("../lifecycle/cd.ts");
    await changeCd(context, request);
  },
});
