import { defineCommand } from "citty";
import type { Context } from "../services/context.ts";

export default defineCommand({
  meta: { name: "job", description: "run a job in the rescue system, with the VM's disks attached" },
  args: {
    jobname: { type: "positional", required: true, description: "its name: NAME of NAME.job" },
  },
  async setup({ args }) {
    const { validateJobName } = await import("../rescue/find-job.ts");
    validateJobName(args.jobname);
  },
  async run({ args, data }) {
    const { jobVm } = await import("../services/job.ts");
    await jobVm(data as Context, args.jobname);
  },
});
