import { define } from "./define.ts";

export default define({
  meta: { name: "status", description: "show the state of the VM" },
  args: { json: { type: "boolean", description: "print one JSON object" } },
  async run(context, args) {
    const { showStatus } = await import("../vm/list.ts");
    await showStatus(context, args.json === true);
  },
});
