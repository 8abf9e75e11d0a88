import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "self-check", description: "compare this program with the checksums of its release" },
  args: {
    sums: {
      type: "positional",
      required: false,
      valueHint: "SHA256SUMS",
      description: "the release's file; without it this program's checksum is shown",
    },
  },
  async run({ args, data }) {
    const { selfCheck } = await import("../host/self-check.ts");
    selfCheck(data as Context, args.sums);
  },
});
