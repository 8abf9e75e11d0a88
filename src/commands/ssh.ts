import { define } from "./define.ts";

export default define({
  meta: { name: "ssh", description: "log in to the guest by ssh, or run a command there" },
  args: {
    user: { type: "string", valueHint: "NAME", description: "log in as NAME; default: SSH_USER, root" },
    command: {
      type: "positional",
      required: false,
      valueHint: "ARG…",
      description: "for ssh as they are: a command, or options of ssh behind --",
    },
  },
  async run(context, args) {
    const { sshToGuest } = await import("../guest/ssh.ts");
    await sshToGuest(context, args._, args.user);
  },
});
