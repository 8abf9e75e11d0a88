import { WAIT_EVENTS } from "../lifecycle/choices.ts";
import type { startByUnit } from "../lifecycle/autostart/delegate.ts";
import type { Context } from "../vm/context.ts";
import { define } from "./define.ts";

export default define({
  meta: { name: "run", description: "run the VM until the guest powers off (default command)" },
  args: {
    detach: {
      type: "boolean",
      alias: "b",
      description: "run the VM in the background",
    },
    wait: {
      type: "string",
      choices: WAIT_EVENTS,
      valueHint: "WHAT",
      description: "with --detach: wait for `ssh` or the guest `agent` (300 s, or -t), or for SECONDS",
    },
    ssh: { type: "boolean", description: "forward a free port of 127.0.0.1 to the guest's port 22" },
    boot: {
      type: "boolean",
      description: "boot a suspended VM, and discard its saved RAM",
    },
    from: {
      type: "string",
      valueHint: "SNAPSHOT",
      description: "boot a snapshot without a network, and keep nothing of the run",
    },
    "from-remote": {
      type: "boolean",
      description: "boot one in the repository SNAPSHOT_REPO, without fetching it; default: the newest",
    },
    timeout: {
      type: "string",
      alias: "t",
      valueHint: "SECONDS",
      description:
        "shut the guest down this long after its start, kill it STOP_TIMEOUT later (124); with --wait: how long to wait",
    },
    isoimage: {
      type: "positional",
      kind: "ISO image",
      required: false,
      description: "CD image to attach and boot once",
    },
  },
  async parse({ isoimage: iso, detach, ssh, boot, wait: what, timeout, ...look }, context) {
    const from =
      look.from === undefined && look["from-remote"] !== true
        ? undefined
        : { name: look.from || undefined, remote: look["from-remote"] === true };
    if (from) {
      const { refuseForLook } = await import("../lifecycle/run-look.ts");
      refuseForLook({ detach, wait: what, ssh, boot, isoimage: iso });
      const { validateSnapshotReference } = await import("../store/snapshots.ts");
      if (from.name !== undefined) validateSnapshotReference(from.name);
    }
    const wait =
      what === undefined
        ? undefined
        : (await import("../lifecycle/wait.ts")).parseWait(what, detach === true);
    const typed = timeout ?? context.options.settings.TIMEOUT;
    const limitSeconds =
      typed === undefined
        ? undefined
        : (await import("../lifecycle/time-limit.ts")).resolveTimeLimit(context, timeout, {
            detach,
            waits: wait !== undefined,
          });
    return { iso, detach, ssh, boot, wait, limitSeconds, from };
  },
  async run(context, { wait, from, ...request }) {
    if (from) {
      const { openLook } = await import("../snapshot/look.ts");
      const { runLook } = await import("../lifecycle/run-look.ts");
      return runLook(context, (vm) => openLook(context, vm, from), request.limitSeconds);
    }
    const watched = request.detach === true && (await delegate(context, request));
    if (!watched) {
      const { runVm } = await import("../lifecycle/run.ts");
      await runVm(context, { ...request, needsSsh: wait?.for === "ssh" });
    }
    if (wait)
      await (await import("../lifecycle/wait.ts")).waitUntilReady(context, wait, request.limitSeconds);
  },
});

/** A VM that is started with the host is systemd's to start. */
const delegate = async (context: Context, request: Parameters<typeof startByUnit>[1]): Promise<boolean> =>
  (await import("../lifecycle/autostart/delegate.ts")).startByUnit(context, request);
