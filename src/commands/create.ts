import { define } from "./define.ts";

export default define({
  meta: { name: "create", description: "create a VM in HOSTDIR: disks, NVRAM, settings" },
  args: {
    guestname: { type: "positional", required: true, description: "name of the VM" },
    isoimage: {
      type: "positional",
      kind: "ISO image",
      required: false,
      description: "CD image to install from",
    },
    from: {
      type: "string",
      kind: "file",
      valueHint: "IMAGE",
      description: "create the first disk from IMAGE (qcow2, raw, vmdk, vdi, vhdx, vpc)",
    },
    image: {
      type: "string",
      many: true,
      kind: "disk image",
      alias: "i",
      valueHint: "TYPE=[FMT=]PATH…",
      description: "attach an existing image as a further disk, kept in guest.env",
    },
    linked: {
      type: "boolean",
      description: "with --from: make the disk an overlay; IMAGE stays its backing file",
    },
    "disk-size": {
      type: "string",
      valueHint: "SIZE",
      description: "with --from: grow the first disk to SIZE, such as 30G",
    },
    "cloud-init": {
      type: "boolean",
      description: "pass the host name and SSHKEYS to cloud-init in the image",
    },
    user: {
      type: "string",
      valueHint: "NAME",
      description: "create this cloud-init user instead of the image's default user",
    },
    "user-data": {
      type: "string",
      kind: "file",
      valueHint: "FILE",
      description: "use FILE as cloud-init user-data",
    },
  },
  async parse(args) {
    const { parseCreateOptions } = await import("../lifecycle/create-options.ts");
    const { requireGuestName } = await import("../lifecycle/guest-name.ts");
    requireGuestName(args.guestname);
    return { name: args.guestname, iso: args.isoimage, options: parseCreateOptions(args) };
  },
  async run(context, { name, iso, options }) {
    const { createVm } = await import("../lifecycle/create.ts");
    return createVm(context, name, iso, options);
  },
});
