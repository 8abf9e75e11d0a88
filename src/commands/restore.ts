import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "restore", description: "put a snapshot in the place of the working files" },
  args: {
    snapshot: { type: "positional", required: false, description: "its name; default: the last one made" },
    "from-remote": {
      type: "boolean",
      description: "fetch it first from the repository SNAPSHOT_REPO; it may be named by its id there",
    },
    copy: {
      type: "boolean",
      description: "disks that stand alone, also from a qcow2 snapshot, which others are only changes to",
    },
  },
  async setup({ args }) {
    const { validateSnapshotName } = await import("../store/snapshots.ts");
    if (args.snapshot && args.snapshot !== "LAST") validateSnapshotName(args.snapshot);
  },
  async run({ args, data }) {
    const request = { name: args.snapshot || undefined, copy: args.copy };
    if (args["from-remote"])
      return (await import("../snapshot/remote/fetch.ts")).restoreRemote(data as Context, request);
    const { restoreVm } = await import("../snapshot/restore.ts");
    await restoreVm(data as Context, request);
  },
});
