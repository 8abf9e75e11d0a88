import { either } from "../lib/text.ts";
import { SNAPSHOT_ACTIONS } from "../snapshot/choices.ts";
import { define } from "./define.ts";

export default define({
  meta: {
    name: "snapshots",
    description: "list snapshots; show, compare, push, remove, describe, protect them; get files",
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
      description:
        "names of snapshots; diff: two; diff --files: two, and a path in the guest or none; describe: one, and its new description; ls: one, and a path in the guest; get: one, paths, and a destination (-, for one path: standard output); mount: one, and an empty directory",
    },
    json: {
      type: "boolean",
      description:
        "list, show: print [{name, made, last, protected, format, parent, consistency, guestBytes, ramBytes, addedBytes, description, problem}]; show adds {files, vm, id, summed, dependents}; diff: {from, to, disks: [{name, fromBytes, toBytes, changedBytes, ranges: [[start, length]]}]}; diff --files: [{change, from, to}] with entries as of ls: [{path, type, mode, uid, gid, size, mtime, target}], without a path [{name, type, bytes, mounted}]",
    },
    files: {
      type: "boolean",
      description:
        "compare files (diff): A added, M modified, D deleted, T of another type, t of another time, and perhaps of other contents",
    },
    checksum: {
      type: "boolean",
      description: "compare the contents of all files rather than size and time (diff --files)",
    },
    recursive: { type: "boolean", description: "list the directories below as well (ls)" },
    escaped: {
      type: "boolean",
      description: "take PATHs as ls shows them, with their escapes (ls, get, mount, diff --files)",
    },
    "key-file": {
      type: "string",
      valueHint: "FILE",
      description: "open LUKS devices with the key or passphrase in FILE (ls, get, mount, diff --files)",
    },
    remote: {
      type: "boolean",
      description:
        "read the repository SNAPSHOT_REPO instead (list, ls, get, mount, diff --files); list --json: [{id, name, made, vm, uuid, snapshotId, host, directory, protected, ramBytes}]",
    },
    "by-name": {
      type: "boolean",
      description: "with --remote: list all VMs whose directory has this name",
    },
    merge: { type: "boolean", description: "rm: merge the data into the snapshots that depend on it" },
  },
  async parse(args) {
    const { action } = args;
    if (
      action === "ls" ||
      action === "get" ||
      action === "mount" ||
      args.files ||
      args.checksum ||
      args.escaped ||
      args["key-file"] !== undefined ||
      args.recursive
    ) {
      const files = (await import("../files/request.ts")).parseFilesRequest(args);
      if (files) return { files };
    }
    const { parseSnapshotRequest } = await import("../snapshot/request.ts");
    return { snapshots: parseSnapshotRequest(args) };
  },
  async run(context, { files, snapshots }) {
    if (files) return (await import("../files/files.ts")).runFiles(context, files);
    const { runSnapshots } = await import("../snapshot/request.ts");
    await runSnapshots(context, snapshots!);
  },
});
