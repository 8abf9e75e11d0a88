import { either } from "../lib/text.ts";
import { TRANSFER_FORMATS } from "../snapshot/choices.ts";
import { define } from "./define.ts";

export default define({
  meta: { name: "export", description: "save the VM, or its snapshot, to a file or pipe" },
  args: {
    snapshot: {
      type: "positional",
      kind: "snapshot",
      required: false,
      description: "name of the snapshot, or LAST; default: the working disks of the VM, which must be off",
    },
    output: {
      type: "string",
      kind: "file",
      alias: "o",
      valueHint: "FILE",
      description: "save to FILE, or continue an interrupted export to it; default, or -: stdout",
    },
    format: {
      type: "string",
      choices: TRANSFER_FORMATS,
      valueHint: "FORMAT",
      description: `${either(TRANSFER_FORMATS)}; default: vm, for import; ova is for other programs`,
    },
  },
  async parse(args) {
    const { parseExport } = await import("../snapshot/transfer/request.ts");
    return parseExport(args);
  },
  async run(context, request) {
    if (request.format === "ova")
      await (await import("../snapshot/transfer/export-ova.ts")).exportOva(context, request);
    else await (await import("../snapshot/transfer/export.ts")).exportVm(context, request);
  },
});
