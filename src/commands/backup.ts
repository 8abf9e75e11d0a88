import { defineCommand } from "citty";
import type { Made } from "../snapshot/make/make.ts";
import type { Context } from "../vm/context.ts";
import { keepArgs } from "./prune.ts";

export default defineCommand({
  meta: { name: "backup", description: "create a snapshot of the VM, running or off" },
  args: {
    snapshot: {
      type: "positional",
      required: false,
      description: "name of the snapshot; default: the next of S0, S1, …",
    },
    description: { type: "positional", required: false, description: "description of the snapshot" },
    format: {
      type: "string",
      valueHint: "FORMAT",
      description: "gz or qcow2; default: SNAPSHOT_FORMAT",
    },
    full: { type: "boolean", description: "make a full qcow2 snapshot, not an incremental one" },
    push: { type: "boolean", description: "push the snapshot to the repository SNAPSHOT_REPO as well" },
    prune: {
      type: "boolean",
      description: "prune afterwards, by the rules given here or the settings KEEP_DAILY …",
    },
    ...keepArgs,
    "rate-limit": {
      type: "string",
      valueHint: "SIZE",
      description: "limit reading of the disks to SIZE bytes per second, such as 50M",
    },
    "lock-timeout": {
      type: "string",
      valueHint: "SECONDS",
      description: "wait this long for the VM's lock; default: 3",
    },
    quiet: { type: "boolean", description: "print only warnings and errors" },
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
