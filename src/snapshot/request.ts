import { commandLine } from "../lib/command-line.ts";
import { VmError } from "../lib/errors.ts";
import type { Context } from "../vm/context.ts";
import { describeSnapshot, protectSnapshots } from "./change.ts";
import { removeSnapshots } from "./remove.ts";
import { showSnapshotList, showSnapshots } from "./catalogue/show.ts";
import { validateSnapshotReference } from "../store/snapshots.ts";

const ACTIONS = ["list", "show", "diff", "push", "rm", "describe", "protect", "unprotect"] as const;
type Action = (typeof ACTIONS)[number];

export interface SnapshotRequest {
  action: Action;
  names: string[];
  /** describe: the new description. */
  text: string;
  json: boolean;
  /** rm: what others need is handed over to them. */
  merge: boolean;
  /** list: what is in the repository. */
  remote: boolean;
  /** Of all VMs whose directory has this one's name. */
  byName: boolean;
}

/** What is typed behind `snapshots`. */
export interface SnapshotArgs {
  action?: string | undefined;
  name?: string | string[] | undefined;
  json?: boolean | undefined;
  merge?: boolean | undefined;
  remote?: boolean | undefined;
  "by-name"?: boolean | undefined;
}

const wrong = (message: string, hint = commandLine("snapshots", "-h")): VmError =>
  new VmError("usage", message, { hint });

/** @throws 64 for what does not go together, 69 for what is not there yet */
export function parseSnapshotRequest(args: SnapshotArgs): SnapshotRequest {
  const action = ACTIONS.find((one) => one === (args.action ?? "list"));
  if (!action)
    throw wrong(
      `snapshots: '${args.action}' is none of ${ACTIONS.join(" ")}`,
      `to see that snapshot: ${commandLine("snapshots", "show", String(args.action))}`,
    );
  const words = [args.name ?? []].flat();
  if (args.json && !["list", "show", "diff"].includes(action))
    throw wrong(`snapshots ${action} takes no --json`);
  if (args.merge && action !== "rm") throw wrong(`snapshots ${action} takes no --merge`, "that is for rm");
  if (args.remote && action !== "list")
    throw wrong(
      `snapshots ${action} takes no --remote`,
      `what is in the repository: ${commandLine("snapshots", "--remote")}`,
    );
  if (args["by-name"] && !args.remote)
    throw wrong(
      "snapshots: --by-name goes with --remote",
      `both: ${commandLine("snapshots", "--remote", "--by-name")}`,
    );
  if (action === "list" && words.length > 0)
    throw wrong("snapshots list takes no name", `to see one: ${commandLine("snapshots", "show", ...words)}`);
  if (action === "describe" && words.length !== 2)
    throw wrong(
      "snapshots describe takes a NAME and a TEXT",
      `quote a TEXT of several words: ${commandLine("snapshots", "describe", words[0] ?? "S0", words.slice(1).join(" ") || "some text")}`,
    );
  if (action === "diff" && words.length !== 2)
    throw wrong(
      "snapshots diff takes two names",
      `the earlier one first: ${commandLine("snapshots", "diff", "S0", "S1")}`,
    );
  if (action !== "list" && words.length === 0) throw wrong(`snapshots ${action}: NAME is missing`);
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

/** Does what was asked for. */
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
    case "protect":
    case "unprotect":
      return protectSnapshots(context, names, action === "protect");
  }
}
