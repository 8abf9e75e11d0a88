import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
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
  async setup({ args }) {
    const { parseNames } = await import("../host/config.ts");
    parseNames(args.name as string[] | undefined);
    if (args.example === true) (await import("../host/config-example.ts")).refuseOthers(args);
  },
  async run({ args, data }) {
    if (args.example === true)
      return (await import("../host/config-example.ts")).printExample(data as Context);
    const { parseNames, showConfig } = await import("../host/config.ts");
    await showConfig(data as Context, parseNames(args.name as string[] | undefined), args.json === true);
  },
});
