import { define } from "./define.ts";

export default define({
  meta: { name: "man", description: "show the manual page" },
  async run(context) {
    const { showManual } = await import("../host/manual.ts");
    await showManual(context);
  },
});
