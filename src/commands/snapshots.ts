import { define } from "./define.ts";

export default define({
  meta: {
    name: "snapshots",
    description: "list the VM's snapshots; show, compare, remove, describe or protect some",
  },
  args: {
    action: {
      type: "positional",
      required: false,
      description: "list, show, diff, push, rm, describe, protect or unprotect; default: list",
    },
    name: {
      type: "positional",
      required: false,
      valueHint: "…",
      description: "the snapshots; diff: two; describe: one, and its new description",
    },
    json: {
      type: "boolean",
      description:
        "list, show: print [{name, made, last, protected, format, parent, consistency, guestBytes, addedBytes, description, problem}]; show adds {files, vm, id, summed, dependents}; diff: {from, to, disks: [{name, fromBytes, toBytes, changedBytes, ranges: [[start, length]]}]}",
    },
    remote: {
      type: "boolean",
      description:
        "list: those of this VM in the repository SNAPSHOT_REPO; --json: [{id, name, made, vm, uuid, snapshotId, host, directory, protected}]",
    },
    "by-name": {
      type: "boolean",
      description: "with --remote: those of all VMs whose directory has this one's name",
    },
    merge: { type: "boolean", description: "rm: hand its data over to the snapshot that builds on it" },
  },
  async parse(args) {
    const { parseSnapshotRequest } = await import("../snapshot/request.ts");
    return parseSnapshotRequest(args);
  },
  async run(context, request) {
    const { runSnapshots } = await import("../snapshot/request.ts");
    await runSnapshots(context, request);
  },
});
