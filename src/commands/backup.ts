import { defineCommand } from "citty";
import type { Context } from "../services/context.ts";

export default defineCommand({
  meta: { name: "backup", description: "make a snapshot of the VM, which must be off" },
  args: {
    snapshot: {
      type: "positional",
      required: false,
      description: "its name; default: the next of S0, S1, …",
    },
    description: { type: "positional", required: false, description: "a few words about it" },
    prune: { type: "boolean", description: "then remove old snapshots, by the settings KEEP_DAILY …" },
    "lock-timeout": {
      type: "string",
      valueHint: "SECONDS",
      description: "how long another command may still be at work on this VM; default: 3",
    },
  },
  async setup({ args }) {
    const { validateSnapshotName } = await import("../services/snapshots.ts");
    if (args.snapshot !== undefined) validateSnapshotName(args.snapshot);
    const { parseSeconds } = await import("../services/seconds.ts");
    parseSeconds("lock-timeout", args["lock-timeout"]);
  },
  async run({ args, data }) {
    const { backupVm } = await import("../services/backup.ts");
    const { notifying } = await import("../services/notify.ts");
    const { parseSeconds } = await import("../services/seconds.ts");
    const { snapshot, description, prune } = args;
    const wait = parseSeconds("lock-timeout", args["lock-timeout"]);
    const waitMs = wait === undefined ? undefined : wait * 1000;
    const backup = (): Promise<void> =>
      notifying(data as Context, snapshot, () => backupVm(data as Context, snapshot, description, waitMs));
    if (!prune) return backup();
    const { backupAndPrune } = await import("../services/prune.ts");
    await backupAndPrune(data as Context, backup);
  },
});
