import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "identity", description: "show the VM's UUID, or give a copy of a VM one of its own" },
  args: {
    new: { type: "boolean", description: "make a new UUID; the one before is kept as a former one" },
    json: { type: "boolean", description: "print {uuid, former, directory}" },
  },
  async run({ args, data }) {
    const { renewIdentity, showIdentity } = await import("../lifecycle/renew-identity.ts");
    if (args.new) return renewIdentity(data as Context, args.json === true);
    showIdentity(data as Context, args.json === true);
  },
});
