import { define } from "./define.ts";

export default define({
  meta: { name: "clone", description: "create VMs from this one, or from its snapshot" },
  args: {
    target: {
      type: "positional",
      required: true,
      many: true,
      kind: "clone",
      valueHint: "[SNAPSHOT] DIR",
      description:
        "new directory, whose name the clone gets; SNAPSHOT: that, or LAST, instead of the working disks",
    },
    linked: {
      type: "boolean",
      description: "make the disks overlays on the qcow2 snapshot; of a template: by default on its newest",
    },
    count: {
      type: "string",
      valueHint: "N",
      description: "make N clones: DIR1 to DIRN, or DIR-1 to DIR-N if DIR ends in a digit",
    },
    "keep-guest": {
      type: "boolean",
      description: "leave the host name, machine-id and SSH host keys in the guest as they are",
    },
    "keep-tpm": {
      type: "boolean",
      description: "copy the state of the TPM; default: the clone gets a new TPM",
    },
    run: {
      type: "boolean",
      description: "run the clones in the background; those of a snapshot with RAM resume there",
    },
    forget: {
      type: "boolean",
      description: "forget the linked clone in DIR, which does not exist any more",
    },
  },
  async parse(args, { options }) {
    const { parseClone } = await import("../snapshot/clone/request.ts");
    return { ...parseClone(args, options), forget: args.forget === true };
  },
  async run(context, { forget, ...request }) {
    const { cloneVm, forgetClone } = await import("../snapshot/clone/clone.ts");
    if (forget) return forgetClone(context, request.directories[0]!);
    const { made, renewedBy } = await cloneVm(context, request, async (vm) =>
      (await import("../job/job.ts")).requireRescue(context, vm),
    );
    if (renewedBy === "job") await (await import("../job/renew-guests.ts")).renewGuests(context, made);
    if (!request.runs) return;
    await (await import("../lifecycle/run-clones.ts")).runClones(context, made);
    if (renewedBy === "agent")
      await (await import("../guest/renew-identity.ts")).renewRunningGuests(context, made);
  },
});
