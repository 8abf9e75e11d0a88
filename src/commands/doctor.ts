import { define } from "./define.ts";

export default define({
  meta: { name: "doctor", description: "show what this host has of all that the program may use" },
  args: {
    json: {
      type: "boolean",
      description:
        "print {ok, host: {name, family}, checks: [{name, state, needed, use, detail, packages?}]}; state: ok, missing or limited",
    },
    report: {
      type: "boolean",
      description:
        "print Markdown for an issue: this, the host, the VM's settings and logs; no secrets, no names",
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
