import { either } from "../lib/text.ts";
import { TRANSFER_FORMATS } from "../snapshot/choices.ts";
import { define } from "./define.ts";

export default define({
  meta: { name: "import", description: "make a VM of what export wrote, or of an OVA" },
  args: {
    file: { type: "positional", kind: "file", required: true, description: "file to read, or - for stdin" },
    directory: {
      type: "positional",
      kind: "directory",
      required: false,
      description: "new directory of the VM; default: one with the VM's name in the current directory",
    },
    "new-identity": {
      type: "boolean",
      description: "assign a new UUID and MAC addresses; default: only if the original is on this host",
    },
    format: {
      type: "string",
      choices: TRANSFER_FORMATS,
      valueHint: "FORMAT",
      description: `${either(TRANSFER_FORMATS)}; default: ova for a FILE with that suffix, else vm`,
    },
  },
  async parse(args) {
    const { parseImport } = await import("../snapshot/transfer/request.ts");
    return parseImport(args);
  },
  async run(context, request) {
    if (request.format === "ova")
      await (await import("../lifecycle/ova/import.ts")).importOva(context, request);
    else await (await import("../snapshot/transfer/import.ts")).importVm(context, request);
  },
});
