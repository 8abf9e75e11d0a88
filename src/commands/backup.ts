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
  },
  async setup({ args }) {
    const { validateSnapshotName } = await import("../services/snapshots.ts");
    if (args.snapshot !== undefined) validateSnapshotName(args.snapshot);
  },
  async run({ args, data }) {
    const { backupVm } = await import("../services/backup.ts");
    await backupVm(data as Context, args.snapshot, args.description);
  },
});
