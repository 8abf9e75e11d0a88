import { define } from "./define.ts";

export default define({
  meta: { name: "status", description: "show what the VM is and does" },
  args: { json: { type: "boolean", description: "for programs" } },
  async run(context, args) {
    const { showStatus } = await import("../vm/list.ts");
    await showStatus(context, args.json === true);
  },
});
