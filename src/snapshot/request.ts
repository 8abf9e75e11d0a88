import { parseAction } from "../lib/action.ts";
import { commandLine } from "../lib/command-line.ts";
import { usageError, type VmError } from "../lib/errors.ts";
import type { Context } from "../vm/context.ts";
import { SNAPSHOT_ACTIONS, type SnapshotAction } from "./choices.ts";
import { describeSnapshot, protectSnapshots } from "./change.ts";
import { removeSnapshots } from "./remove.ts";
import { showSnapshotList, showSnapshots } from "./catalogue/show.ts";
import { validateSnapshotReference } from "../store/snapshots.ts";

export interface SnapshotRequest {
  action: SnapshotAction;
  names: string[];
  /** describe: the new description. */
  text: string;
  json: boolean;
  /** rm: merge into dependent snapshots. */
  merge: boolean;
  /** list: of the repository. */
  remote: boolean;
  /** list: include VMs without a UUID whose directory has this one's name. */
  byName: boolean;
}

/** Arguments of `snapshots`. */
export interface SnapshotArgs {
  action?: string | undefined;
  name?: string | string[] | undefined;
  json?: boolean | undefined;
  merge?: boolean | undefined;
  remote?: boolean | undefined;
  "by-name"?: boolean | undefined;
}

const wrongUsage = (message: string, hint = commandLine("snapshots", "-h")): VmError =>
  usageError(message, hint);

/** @throws 64 for an invalid combination */
export function parseSnapshotRequest(args: SnapshotArgs): SnapshotRequest {
  const word = args.action ?? "list";
  const show = `show that snapshot: ${commandLine("snapshots", "show", word)}`;
  const action = parseAction("snapshots", word, SNAPSHOT_ACTIONS, show);
  const words = [args.name ?? []].flat();
  if (args.json && !["list", "show", "diff"].includes(action))
    throw wrongUsage(`snapshots ${action} takes no --json`);
  if (args.merge && action !== "rm")
    throw wrongUsage(`snapshots ${action} takes no --merge`, "give --merge to: rm");
  if (args.remote && action !== "list")
    throw wrongUsage(
      `snapshots ${action} takes no --remote`,
      `list the repository's snapshots: ${commandLine("snapshots", "--remote")}`,
    );
  if (args["by-name"] && !args.remote)
    throw wrongUsage(
      "snapshots: --by-name needs --remote",
      `give both: ${commandLine("snapshots", "--remote", "--by-name")}`,
    );
  if (action === "list" && words.length > 0)
    throw wrongUsage(
      "snapshots list takes no name",
      `show one: ${commandLine("snapshots", "show", ...words)}`,
    );
  if (action === "describe" && words.length !== 2)
    throw wrongUsage(
      "snapshots describe takes a NAME and a TEXT",
      `quote TEXT if it has several words: ${commandLine("snapshots", "describe", words[0] ?? "S0", words.slice(1).join(" ") || "some text")}`,
    );
  if (action === "diff" && words.length !== 2)
    throw wrongUsage(
      "snapshots diff takes two names",
      `give the earlier one first: ${commandLine("snapshots", "diff", "S0", "S1")}`,
    );
  if (action !== "list" && words.length === 0) throw wrongUsage(`snapshots ${action}: NAME is missing`);
  const names = action === "describe" ? words.slice(0, 1) : words;
  names.forEach(validateSnapshotReference);
  return {
    action,
    names,
    text: action === "describe" ? words[1]! : "",
    json: args.json === true,
    merge: args.merge === true,
    remote: args.remote === true,
    byName: args["by-name"] === true,
  };
}

export async function runSnapshots(
  context: Context,
  { action, names, text, json, merge, remote, byName }: SnapshotRequest,
): Promise<void> {
  switch (action) {
    case "list":
      if (!remote) return showSnapshotList(context, json);
      return (await import("./remote/list.ts")).showRemote(context, { json, byName });
    case "show":
      return showSnapshots(context, names, json);
    case "diff":
      return (await import("./diff.ts")).diffSnapshots(context, names[0]!, names[1]!, json);
    case "push":
      return (await import("./remote/push.ts")).pushSnapshots(context, names);
    case "rm":
      if (!merge) return removeSnapshots(context, names);
      return (await import("./merge.ts")).mergeSnapshots(context, names);
    case "describe":
      return describeSnapshot(context, names[0]!, text);
    case "ls":
    case "get":
      // Of src/files, which parses and runs them.
      return;
    case "protect":
    case "unprotect":
      return protectSnapshots(context, names, action === "protect");
  }
}
