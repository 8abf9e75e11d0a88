import type { Made } from "../snapshot/make/make.ts";
import { keepArgs } from "./prune.ts";
import { define } from "./define.ts";

export default define({
  meta: { name: "backup", description: "make a snapshot of the VM, running or off" },
  args: {
    snapshot: {
      type: "positional",
      required: false,
      description: "its name; default: the next of S0, S1, …",
    },
    description: { type: "positional", required: false, description: "a few words about it" },
    format: { type: "string", valueHint: "FORMAT", description: "gz or qcow2; default: SNAPSHOT_FORMAT" },
    full: { type: "boolean", description: "qcow2: hold everything, not only the changes to an earlier one" },
    push: { type: "boolean", description: "then bring it into the repository SNAPSHOT_REPO, too" },
    prune: {
      type: "boolean",
      description: "then remove old snapshots, by these or the settings KEEP_DAILY …",
    },
    ...keepArgs,
    "rate-limit": {
      type: "string",
      valueHint: "SIZE",
      description: "read the disks at this many bytes a second: 50M",
    },
    "lock-timeout": {
      type: "string",
      valueHint: "SECONDS",
      description: "how long another command may still be at work on this VM; default: 3",
    },
    quiet: { type: "boolean", description: "say nothing unless something is wrong" },
  },
  async parse(args) {
    const { parseBackupRequest } = await import("../snapshot/make/request.ts");
    const { parseRetention } = await import("../snapshot/prune.ts");
    const rules = parseRetention(args);
    return { ...parseBackupRequest(args), push: args.push === true, rules: args.prune ? rules : undefined };
  },
  async run(context, { push, rules, ...request }) {
    const { backupVm, summarize } = await import("../snapshot/make/make.ts");
    const { notifying } = await import("../host/notify.ts");
    const make = async (): Promise<Made> => {
      if (!push) return backupVm(context, request);
      return (await import("../snapshot/remote/push.ts")).backupAndPush(context, request);
    };
    const backup = (): Promise<void> =>
      notifying(context, request.name, async () => {
        const made = await make();
        return { ...made, summary: summarize(made) };
      });
    if (!rules) return backup();
    const { backupAndPrune } = await import("../snapshot/prune.ts");
    await backupAndPrune(context, backup, { rules, waitMs: request.lockWaitMs });
  },
});
