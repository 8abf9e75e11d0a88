import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "restore", description: "replace the working disks with a snapshot" },
  args: {
    snapshot: {
      type: "positional",
      required: false,
      description: "name of the snapshot; default: the newest",
    },
    "from-remote": {
      type: "boolean",
      description: "fetch the snapshot, by name or id, from the repository SNAPSHOT_REPO first",
    },
    copy: {
      type: "boolean",
      description: "make standalone disks rather than overlays on a qcow2 snapshot",
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
