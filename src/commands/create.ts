import { defineCommand } from "citty";
import type { Context } from "../services/context.ts";

export default defineCommand({
  meta: { name: "create", description: "make a new VM in HOSTDIR: disks, NVRAM, settings" },
  args: {
    guestname: { type: "positional", required: true, description: "the VM's name" },
    isoimage: { type: "positional", required: false, description: "CD image to install from" },
  },
  async run({ args, data }) {
    const { createVm } = await import("../services/create.ts");
    await createVm(data as Context, args.guestname, args.isoimage);
  },
});
