import { either } from "../lib/text.ts";
import { COMPRESSIONS, RESCUE_ACTIONS } from "../rescue/choices.ts";
import { define } from "./define.ts";

export default define({
  meta: { name: "rescue", description: "build the rescue system for jobs, or list rescue systems" },
  args: {
    action: {
      type: "positional",
      choices: RESCUE_ACTIONS,
      required: true,
      description: either(RESCUE_ACTIONS),
    },
    iso: {
      type: "string",
      kind: "ISO image",
      valueHint: "FILE",
      description: "build: repack this ALT Rescue CD image",
    },
    recovery: {
      type: "string",
      kind: "directory",
      valueHint: "DIR",
      description: "build --iso: add the files of DIR as /recovery; an autorun among them starts the jobs",
    },
    append: {
      type: "string",
      valueHint: "ARGS",
      description: "build --iso: add kernel arguments to its boot menus",
    },
    name: { type: "string", description: "build: set the profile's name; default: rescue-ARCH" },
    kernel: {
      type: "string",
      kind: "file",
      valueHint: "PATH",
      description: "build: use this kernel or unpacked kernel package; default: the host's",
    },
    root: {
      type: "string",
      kind: "directory",
      valueHint: "DIR",
      description: "build: use the packages unpacked in DIR, which may be of another --arch",
    },
    modules: {
      type: "string",
      kind: "directory",
      valueHint: "DIR",
      description: "build: use the kernel modules in DIR",
    },
    compress: {
      type: "string",
      choices: COMPRESSIONS,
      valueHint: "HOW",
      description: `build: ${either(COMPRESSIONS)}; default: none, which starts fastest`,
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
