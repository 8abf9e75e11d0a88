import { define } from "./define.ts";

export default define({
  meta: { name: "identity", description: "show the VM's UUID, or assign a new one to a copied VM" },
  args: {
    new: { type: "boolean", description: "assign a new UUID, and record the old one as UUID_FORMER" },
    json: { type: "boolean", description: "print {uuid, former, directory}" },
  },
  async run(context, args) {
    const { renewIdentity, showIdentity } = await import("../lifecycle/renew-identity.ts");
    if (args.new) return renewIdentity(context, args.json === true);
    showIdentity(context, args.json === true);
  },
});
