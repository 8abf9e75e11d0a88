import { define } from "./define.ts";

export default define({
  meta: { name: "identity", description: "show the VM's UUID, or give a copy of a VM one of its own" },
  args: {
    new: { type: "boolean", description: "make a new UUID; the one before is kept as a former one" },
    json: { type: "boolean", description: "print {uuid, former, directory}" },
  },
  async run(context, args) {
    const { renewIdentity, showIdentity } = await import("../lifecycle/renew-identity.ts");
    if (args.new) return renewIdentity(context, args.json === true);
    showIdentity(context, args.json === true);
  },
});
