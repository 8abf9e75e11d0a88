import { define } from "./define.ts";

export default define({
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
  async run(context, args) {
    const { execInGuest } = await import("../guest/exec.ts");
    await execInGuest(context, args._);
  },
});
