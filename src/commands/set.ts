import { define } from "./define.ts";

export default define({
  meta: {
    name: "set",
    description: "set settings of the VM: global options of the line, and SETTING=VALUE",
  },
  args: {
    assignment: {
      type: "positional",
      many: true,
      kind: "assignment",
      required: false,
      valueHint: "SETTING=VALUE",
      description: "settings to store in guest.env; a list: one word for each element; empty: none",
    },
    cpu: { type: "string", valueHint: "MODEL", description: "set the CPU model; empty: the default" },
    unset: {
      type: "string",
      many: true,
      kind: "setting",
      valueHint: "SETTING",
      description: "remove SETTING from guest.env, so that the general settings apply; repeatable",
    },
  },
  async parse({ assignment, cpu, unset }, { options }) {
    const { parseSetRequest } = await import("../lifecycle/set-request.ts");
    return parseSetRequest({ words: [assignment ?? []].flat(), cpu, unset: [unset ?? []].flat() }, options);
  },
  async run(context, request) {
    const { changeSettings } = await import("../lifecycle/set.ts");
    await changeSettings(context, request);
  },
});
