import { defineCommand } from "citty";
import { VmError } from "../lib/errors.ts";

export default defineCommand({
  meta: { name: "job", description: "run a job in the rescue system (not in this version yet)" },
  args: {
    jobname: { type: "positional", required: true, description: "the job's name" },
  },
  // Called before the first command of a batch, so that nothing is half done.
  setup() {
    throw new VmError("unavailable", "this version cannot run jobs yet", {
      hint: "everything else of the batch works without @job; nothing was changed",
    });
  },
  run() {},
});
