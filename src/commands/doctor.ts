import { define } from "./define.ts";

export default define({
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
  async parse(args) {
    const { parseDoctorForm } = await import("../host/doctor/doctor.ts");
    return parseDoctorForm(args.json === true, args.report === true);
  },
  async run(context, form) {
    const { runDoctor } = await import("../host/doctor/doctor.ts");
    await runDoctor(context, form);
  },
});
