import { define } from "./define.ts";

export default define({
  meta: { name: "self-check", description: "compare this program with the checksums of its release" },
  args: {
    sums: {
      type: "positional",
      required: false,
      valueHint: "SHA256SUMS",
      description: "the release's file; without it this program's checksum is shown",
    },
  },
  async run(context, args) {
    const { selfCheck } = await import("../host/self-check.ts");
    selfCheck(context, args.sums);
  },
});
