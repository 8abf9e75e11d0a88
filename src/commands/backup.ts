import type { Made } from "../snapshot/make/make.ts";
import { keepArgs } from "./prune.ts";
import { either } from "../lib/text.ts";
import { SNAPSHOT_FORMATS } from "../machine/types.ts";
import { define } from "./define.ts";

export default define({
  meta: { name: "backup", description: "create a snapshot of the VM, running or off" },
  args: {
    snapshot: {
      type: "positional",
      required: false,
      description: "name of the snapshot; default: the next of S0, S1, …",
    },
    description: { type: "positional", required: false, description: "description of the snapshot" },
    format: {
      type: "string",
      choices: SNAPSHOT_FORMATS,
      valueHint: "FORMAT",
      description: `${either(SNAPSHOT_FORMATS)}; default: SNAPSHOT_FORMAT`,
    },
    full: { type: "boolean", description: "make a full qcow2 snapshot, not an incremental one" },
    ram: {
      type: "boolean",
      description: "include the RAM of the running guest, which is paused until that is saved",
    },
    push: { type: "boolean", description: "push the snapshot to the repository SNAPSHOT_REPO as well" },
    prune: {
      type: "boolean",
      description: "prune afterwards, by the rules given here or the settings KEEP_DAILY …",
    },
    ...keepArgs,
    "rate-limit": {
      type: "string",
      valueHint: "SIZE",
      description: "limit reading of the disks to SIZE bytes per second, such as 50M",
    },
    "lock-timeout": {
      type: "string",
      valueHint: "SECONDS",
      description: "wait this long for the VM's lock; default: 3",
    },
    quiet: { type: "boolean", description: "print only warnings and errors" },
  },
  async parse(args) {
    const { parseBackupRequest } = await import("../snapshot/make/request.ts");
    const prunes = args.prune === true || Object.keys(keepArgs).some((name) => name in args);
    const rules = prunes ? (await import("../snapshot/prune.ts")).parseRetention(args) : undefined;
    return { ...parseBackupRequest(args), push: args.push === true, rules };
  },
  async run(context, { push, rules, ...request }) {
    const { backupVm, summarize } = await import("../snapshot/make/make.ts");
    const { notifying } = await import("../host/notify.ts");
    const make = async (): Promise<Made> => {
      if (!push) return backupVm(context, request);
      return (await import("../snapshot/remote/push.ts")).backupAndPush(context, request);
    };
    const backup = (): Promise<void> =>
      notifying(context, request.name, async () => {
        const made = await make();
        return { ...made, summary: summarize(made) };
      });
    if (!rules) return backup();
    const { backupAndPrune } = await import("../snapshot/prune.ts");
    await backupAndPrune(context, backup, { rules, waitMs: request.lockWaitMs });
  },
});
