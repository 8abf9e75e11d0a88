import { defineCommand } from "citty";
import type { Made } from "../snapshot/make/make.ts";
import type { Context } from "../vm/context.ts";
import { keepArgs } from "./prune.ts";

export default defineCommand({
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
  async setup({ args }) {
    const { parseBackupRequest } = await import("../snapshot/make/request.ts");
    parseBackupRequest(args);
    const { parseRetention } = await import("../snapshot/prune.ts");
    parseRetention(args);
  },
  async run({ args, data }) {
    const { backupVm, summarize } = await import("../snapshot/make/make.ts");
    const { parseBackupRequest } = await import("../snapshot/make/request.ts");
    const { notifying } = await import("../host/notify.ts");
    const context = data as Context;
    const request = parseBackupRequest(args);
    const make = async (): Promise<Made> => {
      if (!args.push) return backupVm(context, request);
      return (await import("../snapshot/remote/push.ts")).backupAndPush(context, request);
    };
    const backup = (): Promise<void> =>
      notifying(context, request.name, async () => {
        const made = await make();
        return { ...made, summary: summarize(made) };
      });
    if (!args.prune) return backup();
    const { backupAndPrune, parseRetention } = await import("../snapshot/prune.ts");
    await backupAndPrune(context, backup, { rules: parseRetention(args), waitMs: request.lockWaitMs });
  },
});
