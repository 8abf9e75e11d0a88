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
  },
  async setup({ args }) {
    const { validateSnapshotName } = await import("../services/snapshots.ts");
    if (args.snapshot !== undefined) validateSnapshotName(args.snapshot);
  },
  async run({ args, data }) {
    const { backupVm } = await import("../services/backup.ts");
    const backup = (): Promise<void> => backupVm(data as Context, args.snapshot, args.description);
    if (!args.prune) return backup();
    const { backupAndPrune } = await import("../services/prune.ts");
    await backupAndPrune(data as Context, backup);
  },
});
