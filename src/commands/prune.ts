import { define } from "./define.ts";

const keep = (what: string) => ({ type: "string", valueHint: "N", description: `keep ${what}` }) as const;

/** What `prune` and `backup --prune` have in common. */
export const keepArgs = {
  "keep-last": keep("the newest N"),
  "keep-hourly": keep("the newest of each of the last N hours with a snapshot"),
  "keep-daily": keep("the newest of each of the last N days with a snapshot"),
  "keep-weekly": keep("the newest of each of the last N weeks with a snapshot"),
  "keep-monthly": keep("the newest of each of the last N months with a snapshot"),
  "keep-yearly": keep("the newest of each of the last N years with a snapshot"),
} as const;

export default define({
  meta: {
    name: "prune",
    description: "remove snapshots that no retention rule keeps",
  },
  args: {
    ...keepArgs,
    remote: { type: "boolean", description: "prune the repository SNAPSHOT_REPO instead" },
    "by-name": {
      type: "boolean",
      description: "with --remote: include snapshots without a UUID from this host and directory",
    },
    "no-merge": {
      type: "boolean",
      description: "keep parents of kept snapshots instead of merging them",
    },
    "lock-timeout": {
      type: "string",
      valueHint: "SECONDS",
      description: "wait this long for the VM's lock; default: 3",
    },
    "dry-run": { type: "boolean", alias: "n", description: "show what would be done, change nothing" },
    json: {
      type: "boolean",
      description:
        "print [{name, made, action, reasons, into}]; action: keep, merge or remove; --remote: {id, name, made, action, reasons}",
    },
    quiet: { type: "boolean", description: "print only warnings and errors" },
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
