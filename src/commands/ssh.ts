import { defineCommand } from "citty";
import type { Context } from "../vm/context.ts";

export default defineCommand({
  meta: { name: "ssh", description: "log in to the guest with ssh, or run a command there" },
  args: {
    user: { type: "string", valueHint: "NAME", description: "log in as NAME; default: SSH_USER, root" },
    command: {
      type: "positional",
      required: false,
      valueHint: "ARG…",
      description: "command for the guest, or options of ssh after --",
    },
  },
  async run({ args, data }) {
    const { sshToGuest } = await import("../guest/ssh.ts");
    await sshToGuest(data as Context, args._, args.user);
  },
});
