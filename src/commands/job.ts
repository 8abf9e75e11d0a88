import { define } from "./define.ts";

export default define({
  meta: { name: "job", description: "run a job in the rescue system with the VM's disks attached" },
  args: {
    list: { type: "boolean", description: "list available jobs" },
    jobname: { type: "positional", required: true, description: "name of the job: NAME of NAME.job" },
  },
  async parse({ list, jobname }) {
    const { validateJobName } = await import("../rescue/find-job.ts");
    // With --list it may be missing.
    if (jobname !== undefined) validateJobName(jobname);
    return { list: list === true, name: jobname };
  },
  async run(context, { list, name }) {
    if (list) return (await import("../job/list.ts")).printJobs(context);
    const { jobVm } = await import("../job/job.ts");
    await jobVm(context, name);
  },
});
