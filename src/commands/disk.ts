import { either } from "../lib/text.ts";
import { DISK_ACTIONS } from "../lifecycle/choices.ts";
import { define } from "./define.ts";

export default define({
  meta: {
    name: "disk",
    description: "list the VM's disks; add, remove, resize or limit one, running or off",
  },
  args: {
    action: {
      type: "positional",
      choices: DISK_ACTIONS,
      required: false,
      description: `${either(DISK_ACTIONS)}; default: list`,
    },
    name: {
      type: "positional",
      kind: "disk",
      required: false,
      description:
        "add: SIZE or TYPE=SIZE of a new disk, or TYPE=[FMT=]PATH; else a disk's number, name or path",
    },
    size: {
      type: "positional",
      required: false,
      description: "resize: the new size, or +SIZE to add that",
    },
    delete: { type: "boolean", description: "remove: remove the file of one of the VM's own disks, too" },
    fs: {
      type: "boolean",
      description:
        "resize: grow its last partition, LVM and the filesystem, too, by a job, or the agent of the running guest",
    },
    iops: {
      type: "string",
      valueHint: "N",
      description: "set: limit its requests per second, at once and from then on; 0: no limit",
    },
    bps: {
      type: "string",
      valueHint: "SIZE",
      description: "set: limit the bytes that it reads and writes per second; 0: no limit",
    },
    json: {
      type: "boolean",
      description:
        "list: print [{number, image, bus, format, virtualBytes, actualBytes, attached, stored, iops, bytesPerSecond}]",
    },
  },
  async parse(args) {
    const { parseDiskCommand } = await import("../lifecycle/disks/request.ts");
    return parseDiskCommand(args);
  },
  async run(context, request) {
    const { runDiskCommand } = await import("../lifecycle/disks/command.ts");
    const grown = await runDiskCommand(context, request, async (vm) =>
      (await import("../job/job.ts")).requireRescue(context, vm),
    );
    if (grown === undefined) return;
    if (grown.live) return (await import("../guest/grow-fs.ts")).growInGuest(context, grown.serial);
    const { jobVm } = await import("../job/job.ts");
    await jobVm(context, "grow-fs", { DISK: grown.serial });
  },
});
