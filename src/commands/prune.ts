import { define } from "./define.ts";

const keep = (what: string) => ({ type: "string", valueHint: "N", description: `keep ${what}` }) as const;

/** What `prune` and `backup --prune` have in common. */
export const keepArgs = {
  "keep-last": keep("the newest N"),
  "keep-hourly": keep("the newest of each of the last N hours that have one"),
  "keep-daily": keep("the newest of each of the last N days that have one"),
  "keep-weekly": keep("the newest of each of the last N weeks that have one"),
  "keep-monthly": keep("the newest of each of the last N months that have one"),
  "keep-yearly": keep("the newest of each of the last N years that have one"),
} as const;

export default define({
  meta: {
    name: "prune",
    description: "remove the snapshots that no rule keeps; protected ones stay",
  },
  args: {
    ...keepArgs,
    remote: { type: "boolean", description: "of those in the repository SNAPSHOT_REPO" },
    "by-name": {
      type: "boolean",
      description:
        "with --remote: count those without a UUID, too, that came from this host and directory under its name",
    },
    "no-merge": {
      type: "boolean",
      description: "keep snapshots that kept ones build on, instead of merging them into these",
    },
    "lock-timeout": {
      type: "string",
      valueHint: "SECONDS",
      description: "how long another command may still be at work on this VM; default: 3",
    },
    "dry-run": { type: "boolean", alias: "n", description: "show what would be done, and do nothing" },
    json: {
      type: "boolean",
      description:
        "print [{name, made, action, reasons, into}]; action: keep, merge or remove; --remote: {id, name, made, action, reasons}",
    },
    quiet: { type: "boolean", description: "print nothing but what is wrong" },
  },
  async parse(args) {
    const { parsePruneRequest } = await import("../snapshot/prune.ts");
    return parsePruneRequest(args);
  },
  async run(context, request) {
    const { pruneVm } = await import("../snapshot/prune.ts");
    await pruneVm(context, request);
  },
});
