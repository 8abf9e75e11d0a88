import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "doctor", description: "check this host for required and optional programs and features" },
  args: {
    json: {
      type: "boolean",
      description:
        "print {ok, host: {name, family}, checks: [{name, state, needed, use, detail, packages?}]}; state: ok, missing or limited",
    },
    report: {
      type: "boolean",
      description: "print a bug report in Markdown: checks, host, settings, logs; without secrets",
    },
  },
  async setup({ args }) {
    const { parseDoctorForm } = await import("../host/doctor/doctor.ts");
    parseDoctorForm(args.json === true, args.report === true);
  },
  async run({ args, data }) {
    const { parseDoctorForm, runDoctor } = await import("../host/doctor/doctor.ts");
    await runDoctor(data as Context, parseDoctorForm(args.json === true, args.report === true));
  },
});
