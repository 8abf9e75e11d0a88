import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "self-check", description: "compare this program's checksum with those of a release" },
  args: {
    sums: {
      type: "positional",
      required: false,
      valueHint: "SHA256SUMS",
      description: "checksum list of a release; without it print this program's checksum",
    },
  },
  async run({ args, data }) {
    const { selfCheck } = await import("../host/self-check.ts");
    selfCheck(data as Context, args.sums);
  },
});
