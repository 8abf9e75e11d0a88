import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "job", description: "run a job in the rescue system with the VM's disks attached" },
  args: {
    list: { type: "boolean", description: "list available jobs" },
    jobname: { type: "positional", required: true, description: "name of the job: NAME of NAME.job" },
  },
  async setup({ args }) {
    const { validateJobName } = await import("../rescue/find-job.ts");
    if (args.jobname !== undefined) validateJobName(args.jobname);
  },
  async run({ args, data }) {
    const context = data as Context;
    if (args.list) return (await import("../job/list.ts")).printJobs(context);
    const { jobVm } = await import("../job/job.ts");
    await jobVm(context, args.jobname);
  },
});
