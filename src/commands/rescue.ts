import { define } from "./define.ts";

export default define({
  meta: { name: "rescue", description: "build the rescue system for jobs, or list rescue systems" },
  args: {
    action: { type: "positional", required: true, description: "build or list" },
    iso: { type: "string", valueHint: "FILE", description: "build: repack this ALT Rescue CD image" },
    name: { type: "string", description: "build: set the profile's name; default: rescue-ARCH" },
    kernel: {
      type: "string",
      valueHint: "PATH",
      description: "build: use this kernel or unpacked kernel package; default: the host's",
    },
    root: {
      type: "string",
      valueHint: "DIR",
      description: "build: use the packages unpacked in DIR, which may be of another --arch",
    },
    modules: { type: "string", valueHint: "DIR", description: "build: use the kernel modules in DIR" },
    compress: {
      type: "string",
      valueHint: "HOW",
      description: "build: none, gzip, zstd, lz4 or xz; default: none, which starts fastest",
    },
  },
  async parse(args) {
    const { parseRescueRequest } = await import("../job/rescue.ts");
    return parseRescueRequest(args.action, args);
  },
  async run(context, request) {
    if (request.action === "list") {
      const { listRescues } = await import("../job/rescue-list.ts");
      return listRescues(context);
    }
    const { buildRescue } = await import("../job/rescue.ts");
    await buildRescue(context, request);
  },
});
