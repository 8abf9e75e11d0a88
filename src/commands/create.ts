import { define } from "./define.ts";

export default define({
  meta: { name: "create", description: "make a new VM in HOSTDIR: disks, NVRAM, settings" },
  args: {
    guestname: { type: "positional", required: true, description: "the VM's name" },
    isoimage: { type: "positional", required: false, description: "CD image to install from" },
    from: {
      type: "string",
      valueHint: "IMAGE",
      description: "make the first disk from this image: qcow2, raw, vmdk, vdi, vhdx, vpc",
    },
    image: {
      type: "string",
      alias: "i",
      valueHint: "TYPE=[FMT=]PATH…",
      description: "keep an existing image as a further disk of the VM; before create: for this command line",
    },
    linked: {
      type: "boolean",
      description: "with --from: keep only what differs from IMAGE, which has to stay",
    },
    "disk-size": {
      type: "string",
      valueHint: "SIZE",
      description: "with --from: grow the first disk, 30G say",
    },
    "cloud-init": {
      type: "boolean",
      description: "tell the image's cloud-init the name of the machine and your SSHKEYS",
    },
    user: {
      type: "string",
      valueHint: "NAME",
      description: "cloud-init: this user instead of the image's own",
    },
    "user-data": { type: "string", valueHint: "FILE", description: "cloud-init: user-data of your own" },
  },
  async parse(args) {
    const { parseCreateOptions } = await import("../lifecycle/create-options.ts");
    return { name: args.guestname, iso: args.isoimage, options: parseCreateOptions(args) };
  },
  async run(context, { name, iso, options }) {
    const { createVm } = await import("../lifecycle/create.ts");
    return createVm(context, name, iso, options);
  },
});
