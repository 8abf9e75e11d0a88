import { define } from "./define.ts";

export default define({
  meta: { name: "self-check", description: "compare this program's checksum with those of a release" },
  args: {
    sums: {
      type: "positional",
      required: false,
      valueHint: "SHA256SUMS",
      description: "checksum list of a release; without it print this program's checksum",
    },
  },
  async run(context, args) {
    const { selfCheck } = await import("../host/self-check.ts");
    selfCheck(context, args.sums);
  },
});
