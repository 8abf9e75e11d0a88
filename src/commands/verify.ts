import { define } from "./define.ts";

export default define({
  meta: { name: "verify", description: "check that snapshots are intact, and that they boot" },
  args: {
    snapshot: {
      type: "positional",
      many: true,
      kind: "snapshot",
      required: false,
      description: "names of snapshots; default: the newest; their parents are checked as well",
    },
    all: { type: "boolean", description: "check all snapshots" },
    deep: {
      type: "boolean",
      description: "decompress every disk and check its image; needs space in TMPDIR for the largest",
    },
    boot: {
      type: "boolean",
      description:
        "boot a copy of each without a network until a login prompt or the guest agent; one with RAM is resumed",
    },
    "boot-wait": {
      type: "string",
      valueHint: "REGEX",
      description: "with --boot: wait for REGEX on the serial console instead",
    },
    timeout: {
      type: "string",
      alias: "t",
      valueHint: "SECONDS",
      description: "with --boot: limit each boot to SECONDS; default: 300",
    },
    remote: {
      type: "boolean",
      description: "check the repository SNAPSHOT_REPO instead; with --deep: read all its data",
    },
    json: {
      type: "boolean",
      description: "print [{name, format, ok, problems, notes, bytes, seconds, booted?, resumed?}]",
    },
    quiet: { type: "boolean", description: "print only warnings and errors" },
  },
  async parse(args, context) {
    const { parseVerify } = await import("../snapshot/verify/verify.ts");
    const { findTypedLimit } = await import("../lifecycle/time-limit.ts");
    const limit = args.timeout ?? (args.boot ? findTypedLimit(context) : undefined);
    return { ...parseVerify({ ...args, timeout: limit }), remote: args.remote === true };
  },
  async run(context, { remote, ...request }) {
    if (remote)
      return (await import("../snapshot/remote/keep.ts")).checkRemote(context, request.deep === true);
    const { verifySnapshots } = await import("../snapshot/verify/verify.ts");
    await verifySnapshots(context, request);
  },
});
