import { defineCommand } from "citty";
import type { Context } from "../services/context.ts";

export default defineCommand({
  meta: { name: "doctor", description: "show what this host has of all that the program may use" },
  args: {
    json: {
      type: "boolean",
      description:
        "print {ok, host: {name, family}, checks: [{name, state, needed, use, detail, packages?}]}; state: ok, missing or limited",
    },
  },
  async run({ args, data }) {
    const { runDoctor } = await import("../services/doctor.ts");
    await runDoctor(data as Context, args.json === true);
  },
});
