import { define } from "./define.ts";

export default define({
  meta: { name: "verify", description: "look whether snapshots are whole, and whether they boot" },
  args: {
    snapshot: {
      type: "positional",
      required: false,
      valueHint: "…",
      description: "their names; default: the last one made. Those they build on are looked at too",
    },
    all: { type: "boolean", description: "all snapshots" },
    deep: {
      type: "boolean",
      description: "unpack every disk and look into its image; in TMPDIR, which needs room for the largest",
    },
    boot: {
      type: "boolean",
      description:
        "boot a copy of each without a network, until its console asks for a login or its agent answers",
    },
    "boot-wait": {
      type: "string",
      valueHint: "REGEX",
      description: "with --boot: until its serial console shows this instead",
    },
    timeout: {
      type: "string",
      valueHint: "SECONDS",
      description: "with --boot: how long each may take; default: 300",
    },
    remote: {
      type: "boolean",
      description: "look at the repository SNAPSHOT_REPO instead; with --deep at all that is in it",
    },
    json: {
      type: "boolean",
      description: "print [{name, format, ok, problems, notes, bytes, seconds, booted?}]",
    },
    quiet: { type: "boolean", description: "print nothing but what is wrong" },
  },
  async parse(args) {
    const { parseVerify } = await import("../snapshot/verify/verify.ts");
    return { ...parseVerify(args), remote: args.remote === true };
  },
  async run(context, { remote, ...request }) {
    if (remote)
      return (await import("../snapshot/remote/keep.ts")).checkRemote(context, request.deep === true);
    const { verifySnapshots } = await import("../snapshot/verify/verify.ts");
    await verifySnapshots(context, request);
  },
});
