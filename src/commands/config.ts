import { define } from "./define.ts";

export default define({
  meta: { name: "config", description: "show the settings in force and where each was set" },
  args: {
    example: {
      type: "boolean",
      description: "print a settings file with all built-in values, commented out",
    },
    name: {
      type: "positional",
      required: false,
      valueHint: "…",
      description: "settings to show; default: all",
    },
    json: {
      type: "boolean",
      description:
        "print {NAME: {value, raw, origin: {kind, file?, line?, option?, added?}}}; kind: default, file, option, environment",
    },
  },
  async parse(args) {
    const { parseNames } = await import("../host/config.ts");
    const names = parseNames(args.name as string[] | undefined);
    if (args.example) (await import("../host/config-example.ts")).refuseOthers(args);
    return { names, example: args.example === true, json: args.json === true };
  },
  async run(context, { names, example, json }) {
    if (example) return (await import("../host/config-example.ts")).printExample(context);
    const { showConfig } = await import("../host/config.ts");
    await showConfig(context, names, json);
  },
});
