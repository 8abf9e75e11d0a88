import { define } from "./define.ts";

export default define({
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
  async run(context, args) {
    const { sshToGuest } = await import("../guest/ssh.ts");
    await sshToGuest(context, args._, args.user);
  },
});
