import { either } from "../lib/text.ts";
import { SNAPSHOT_ACTIONS } from "../snapshot/choices.ts";
import { define } from "./define.ts";

export default define({
  meta: {
    name: "snapshots",
    description: "list snapshots; show, compare, push, remove, describe or protect them",
  },
  args: {
    action: {
      type: "positional",
      choices: SNAPSHOT_ACTIONS,
      required: false,
      description: `${either(SNAPSHOT_ACTIONS)}; default: list`,
    },
    name: {
      type: "positional",
      many: true,
      empty: true,
      kind: "snapshot",
      required: false,
      description: "names of snapshots; diff: two; describe: one, and its new description",
    },
    json: {
      type: "boolean",
      description:
        "list, show: print [{name, made, last, protected, format, parent, consistency, guestBytes, ramBytes, addedBytes, description, problem}]; show adds {files, vm, id, summed, dependents}; diff: {from, to, disks: [{name, fromBytes, toBytes, changedBytes, ranges: [[start, length]]}]}",
    },
    remote: {
      type: "boolean",
      description:
        "list: read the repository SNAPSHOT_REPO instead; --json: [{id, name, made, vm, uuid, snapshotId, host, directory, protected, ramBytes}]",
    },
    "by-name": {
      type: "boolean",
      description: "with --remote: list all VMs whose directory has this name",
    },
    merge: { type: "boolean", description: "rm: merge the data into the snapshots that depend on it" },
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
