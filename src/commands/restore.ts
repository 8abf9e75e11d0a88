import { usageError, VmError } from "../lib/errors.ts";
import { log } from "../lib/log.ts";
import type { RestoreRequest } from "../snapshot/restore.ts";
import type { Context } from "../vm/context.ts";
import { commandLine } from "../lib/command-line.ts";
import { define } from "./define.ts";

/** From the repository: the guest runs while its disks are copied. Without FUSE they are fetched first. */
async function restoreAndRun(context: Context, request: RestoreRequest): Promise<void> {
  const { runVm } = await import("../lifecycle/run.ts");
  const { restoreInPlace } = await import("../snapshot/remote/arriving.ts");
  let repository;
  try {
    repository = await restoreInPlace(context, request);
  } catch (error) {
    if (!(error instanceof VmError && error.reason === "no-fuse")) throw error;
    log.info(`${error.message}: fetching the snapshot first`);
    await (await import("../snapshot/remote/fetch.ts")).restoreRemote(context, request);
  }
  try {
    await runVm(context, { detach: true, repository });
  } finally {
    await repository?.end();
  }
}

export default define({
  meta: { name: "restore", description: "replace the working disks with a snapshot" },
  args: {
    snapshot: {
      type: "positional",
      kind: "snapshot",
      required: false,
      description: "name of the snapshot; default: the newest",
    },
    "from-remote": {
      type: "boolean",
      description:
        "fetch the snapshot, by name or id, from the repository SNAPSHOT_REPO first; with --run, boot from there meanwhile",
    },
    copy: {
      type: "boolean",
      description: "make standalone disks rather than overlays on a qcow2 snapshot",
    },
    "no-ram": {
      type: "boolean",
      description: "leave the RAM of the snapshot out: the next run boots the guest",
    },
    only: {
      type: "string",
      many: true,
      valueHint: "PATH",
      description: "replace only PATH in the working disks; any number of times",
    },
    escaped: {
      type: "boolean",
      description: "with --only: take PATHs as snapshots ls shows them, with their escapes",
    },
    "key-file": {
      type: "string",
      valueHint: "FILE",
      description: "with --only: open LUKS devices with the key or passphrase in FILE",
    },
    "dry-run": {
      type: "boolean",
      alias: "n",
      description: "with --only: check and show what would be replaced, change nothing",
    },
    run: { type: "boolean", description: "run the VM in the background afterwards" },
  },
  async parse(args) {
    const { validateSnapshotReference } = await import("../store/snapshots.ts");
    const name = args.snapshot || undefined;
    if (name !== undefined) validateSnapshotReference(name);
    const remote = args["from-remote"] === true;
    const listing = `list the snapshots: ${commandLine("snapshots", ...(remote ? ["--remote"] : []))}`;
    const words = args.only === undefined ? undefined : [args.only].flat();
    for (const option of ["escaped", "key-file"] as const)
      if (args[option] && !words) throw usageError(`restore: --${option} needs --only`, listing);
    const only = args.escaped ? words?.map((await import("../files/escaped-path.ts")).readShownPath) : words;
    if (only) (await import("../files/put.ts")).validateOnly(only, name, remote);
    if (args["dry-run"] && !only) throw usageError("restore: --dry-run needs --only", listing);
    if (only && args.copy)
      throw usageError(
        "restore --only takes no --copy",
        commandLine(
          "restore",
          ...(name === undefined ? [] : [name]),
          ...(remote ? ["--from-remote"] : []),
          ...only.map((path) => `--only=${path}`),
        ),
      );
    return {
      name,
      only,
      copy: args.copy,
      ram: args["no-ram"] !== true,
      remote,
      dryRun: args["dry-run"] === true,
      keyFile: args["key-file"],
      runs: args.run === true,
    };
  },
  async run(context, { remote, runs, only, dryRun, keyFile, ...request }) {
    if (remote && runs && !only && !request.copy) return restoreAndRun(context, request);
    if (only)
      await (
        await import("../files/put.ts")
      ).restoreFiles(context, { name: request.name, paths: only, remote, keyFile, dryRun });
    else if (remote) await (await import("../snapshot/remote/fetch.ts")).restoreRemote(context, request);
    else await (await import("../snapshot/restore.ts")).restoreVm(context, request);
    if (runs && !dryRun) await (await import("../lifecycle/run.ts")).runVm(context, { detach: true });
  },
});
