import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "identity", description: "show the VM's UUID, or assign a new one to a copied VM" },
  args: {
    new: { type: "boolean", description: "assign a new UUID, and record the old one as UUID_FORMER" },
    json: { type: "boolean", description: "print {uuid, former, directory}" },
  },
  async run({ args, data }) {
    const { renewIdentity, showIdentity } = await import("../lifecycle/renew-identity.ts");
    if (args.new) return renewIdentity(data as Context, args.json === true);
    showIdentity(data as Context, args.json === true);
  },
});
