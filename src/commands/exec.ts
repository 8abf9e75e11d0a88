import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "exec", description: "run a program in the guest by its guest agent; no network is needed" },
  args: {
    command: {
      type: "positional",
      valueHint: "CMD [ARG…]",
      description: "the program and its arguments as they are: no shell looks at them",
    },
  },
  async run({ args, data }) {
    const { execInGuest } = await import("../guest/exec.ts");
    await execInGuest(data as Context, args._);
  },
});
