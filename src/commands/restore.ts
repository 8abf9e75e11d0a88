import { define } from "./define.ts";

export default define({
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
  async parse(args) {
    const { validateSnapshotReference } = await import("../store/snapshots.ts");
    const name = args.snapshot || undefined;
    if (name !== undefined) validateSnapshotReference(name);
    return { name, copy: args.copy, remote: args["from-remote"] === true };
  },
  async run(context, { remote, ...request }) {
    if (remote) return (await import("../snapshot/remote/fetch.ts")).restoreRemote(context, request);
    const { restoreVm } = await import("../snapshot/restore.ts");
    await restoreVm(context, request);
  },
});
