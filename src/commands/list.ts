import { STATES } from "../vm/status-types.ts";
import { define } from "./define.ts";

export default define({
  meta: {
    name: "list",
    description: "list all VMs below PROFILES, and others that you have created or run",
  },
  args: {
    selection: {
      type: "positional",
      valueHint: "STATE|PATTERN",
      required: false,
      many: true,
      choices: STATES,
      description: `only these VMs: a state (${STATES.join(" ")}), or a name, in which * and ? stand for other text`,
    },
    json: { type: "boolean", description: "print an array of objects as `status --json` does" },
    quiet: {
      type: "boolean",
      alias: "q",
      description: "print directories only: names below PROFILES, paths elsewhere",
    },
  },
  async parse({ selection, json, quiet }, { options }) {
    const { parseSelection } = await import("../vm/list.ts");
    const words = (selection ?? []) as unknown as string[];
    return {
      json: json === true,
      names: quiet === true,
      selection: parseSelection(words, options.labels),
    };
  },
  async run(context, request) {
    const { listVms } = await import("../vm/list.ts");
    await listVms(context, request);
  },
});
