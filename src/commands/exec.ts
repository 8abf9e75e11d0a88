import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: {
    name: "exec",
    description: "run a program in the guest through the guest agent, without a network",
  },
  args: {
    command: {
      type: "positional",
      valueHint: "CMD [ARG…]",
      description: "program and arguments, passed as they are, without a shell",
    },
  },
  async run({ args, data }) {
    const { execInGuest } = await import("../guest/exec.ts");
    await execInGuest(data as Context, args._);
  },
});
