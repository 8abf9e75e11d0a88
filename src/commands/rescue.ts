import { define } from "./define.ts";

export default define({
  meta: { name: "rescue", description: "build the rescue system that jobs run in, or list those there are" },
  args: {
    action: { type: "positional", required: true, description: "build or list" },
    iso: { type: "string", valueHint: "FILE", description: "build: from this ALT Rescue CD image" },
    name: { type: "string", description: "build: the profile's name; default: rescue-ARCH" },
    kernel: {
      type: "string",
      valueHint: "PATH",
      description: "build: a kernel, or an unpacked kernel package; default: the host's",
    },
    root: {
      type: "string",
      valueHint: "DIR",
      description: "build: from a system whose packages are unpacked there; for --arch of another kind",
    },
    modules: { type: "string", valueHint: "DIR", description: "build: the kernel's modules" },
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
